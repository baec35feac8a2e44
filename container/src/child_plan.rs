//! What a clone is told to do.

use std::os::fd::RawFd;

use crate::explain::Words;
use crate::process::plan::ProcessPlan;
use crate::step::Failure;

/// What a clone carries out before its program, prepared before it exists: it must not allocate (see `clone`).
pub(crate) trait ChildPlan {
    /// The program and what it is given.
    fn process(&self) -> &ProcessPlan;

    /// The descriptors above the standard streams that the clone needs.
    fn descriptors(&self) -> Vec<RawFd>;

    /// How many descriptors from 3 on the program gets.
    fn further_descriptors(&self) -> u32;

    /// What the plan's parts are called, for an error.
    fn words(&self) -> Words<'_>;

    /// Child: everything up to the program.
    fn set_up(&self, child_end: RawFd) -> Result<(), Failure>;
}
