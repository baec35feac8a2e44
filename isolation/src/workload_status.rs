//! How a workload ended.

/// How a workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadStatus {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl WorkloadStatus {
    /// The exit code that a shell gives it: 128 and the signal's number for a killed one.
    pub fn exit_code(self) -> u8 {
        match self {
            WorkloadStatus::Exited(code) => code,
            WorkloadStatus::Killed(signal) => 128u8.saturating_add(signal),
        }
    }
}
