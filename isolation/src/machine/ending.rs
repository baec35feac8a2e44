//! What the end of a guest, or of a process in it, means to who waits for it.

use isolab_guest::control::{ProcessEnd, Silence};
use isolab_vmm::machine::{self, RunReport};

use super::console_tail::ConsoleTail;
use super::machine_error;
use crate::error::IsolationError;
use crate::workload_status::WorkloadStatus;

/// What Linux says before anything else when it gives up (kernel/panic.c).
const PANIC: &str = "Kernel panic - not syncing: ";

/// How a process of the guest ended.
///
/// # Errors
/// It was lost, with its guest or by its guest's fault; or it was never started.
pub(super) fn of_process(
    end: ProcessEnd,
    console: &ConsoleTail,
) -> Result<WorkloadStatus, IsolationError> {
    let console = || console.text();
    match end {
        ProcessEnd::Exited(code) => Ok(WorkloadStatus::Exited(code)),
        ProcessEnd::Killed(signal) => Ok(WorkloadStatus::Killed(signal)),
        ProcessEnd::NotStarted(code, why) => Err(IsolationError::NotStarted { code, why }),
        ProcessEnd::Failed(why) => Err(IsolationError::Init { why, console: console() }),
        ProcessEnd::Silent(silence) => Err(or_panic(console(), |console| match silence {
            Silence::NeverUp(limit) => {
                IsolationError::NeverUp { seconds: limit.as_secs(), console }
            }
            Silence::Hung(limit) => IsolationError::Hung { seconds: limit.as_secs(), console },
        })),
        ProcessEnd::Lost => Err(or_panic(console(), |console| IsolationError::GuestEnded {
            reason: "its control channel closed".to_owned(),
            console,
        })),
    }
}

/// Why the machine ended before the workload did.
pub(super) fn of_machine(
    end: Result<RunReport, Box<machine::Error>>,
    console: &ConsoleTail,
) -> IsolationError {
    match end {
        Ok(report) => or_panic(console.text(), |console| IsolationError::GuestEnded {
            reason: match report.triple_fault {
                Some(fault) => fault.to_string(),
                None => format!("{:?}", report.reason),
            },
            console,
        }),
        Err(error) => machine_error(*error, console),
    }
}

/// A guest that came to a bad end and whose console has a panic came to it by that. Whoever writes to its console can
/// say so too, of their own guest.
fn or_panic(console: String, otherwise: impl FnOnce(String) -> IsolationError) -> IsolationError {
    let why = console.rsplit_once(PANIC).map(|(_, why)| why.lines().next().unwrap_or_default());
    match why.map(|why| why.trim().to_owned()) {
        Some(why) => IsolationError::Panicked { why, console },
        None => otherwise(console),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn console(text: &str) -> ConsoleTail {
        let mut console = ConsoleTail::default();
        console.write_all(text.as_bytes()).unwrap();
        console
    }

    #[test]
    fn a_bad_end_is_the_panic_that_the_console_has() {
        let silent = ProcessEnd::Silent(Silence::Hung(Duration::from_secs(9)));
        let quiet = of_process(silent.clone(), &console("nothing\n")).unwrap_err();
        assert_eq!(quiet.to_string(), "the guest hangs: it has not answered for 9 seconds");
        let text =
            "[ 1.2] Kernel panic - not syncing: Attempted to kill init!\r\n[ 1.3] CPU: 0\r\n";
        for end in [silent, ProcessEnd::Lost] {
            let error = of_process(end, &console(text)).unwrap_err();
            assert_eq!(error.to_string(), "the guest's kernel panicked: Attempted to kill init!");
            assert!(error.console().unwrap().ends_with("CPU: 0"));
        }
        // An end that the guest itself tells is what it is.
        assert!(matches!(
            of_process(ProcessEnd::Exited(3), &console(text)),
            Ok(WorkloadStatus::Exited(3))
        ));
    }
}
