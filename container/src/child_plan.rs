//! What a clone is told to do.

use std::os::fd::RawFd;

use crate::process::plan::ProcessPlan;
use crate::step::{Failure, Parts};

/// What a clone carries out before its program, prepared before it exists: it must not allocate (see `clone`).
pub(crate) trait ChildPlan: Parts {
    /// The program and what it is given.
    fn process(&self) -> &ProcessPlan;

    /// The descriptors above the standard streams that the clone needs.
    fn descriptors(&self) -> Vec<RawFd>;

    /// How many descriptors from 3 on the program gets.
    fn further_descriptors(&self) -> u32;

    /// Whether the clone begins in namespaces that are to be entered before: by a process between (see `between`).
    fn begins_elsewhere(&self) -> bool;

    /// Child: enters them.
    fn enter(&self) -> Result<(), Failure>;

    /// Child: everything up to the program.
    fn set_up(&self, child_end: RawFd) -> Result<(), Failure>;
}
