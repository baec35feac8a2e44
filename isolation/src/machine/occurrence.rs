//! What happens to a machine that somebody waits for.

use isolab_guest::control::ProcessEnd;
use isolab_vmm::machine::{self, RunReport};

/// What the wait for a machine's workload ends with: whichever comes first.
pub(super) enum Occurrence {
    /// Init says how the workload ended.
    Reported(ProcessEnd),
    /// The operator wants it gone; by this signal, if it had been a process.
    Forced(u8),
    /// The machine has ended.
    Stopped(Result<RunReport, Box<machine::Error>>),
}
