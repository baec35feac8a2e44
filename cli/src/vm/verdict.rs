//! How a machine ended, in words and as an exit status. The codes follow podman's, which has 128 and
//! a signal's number for what died of that signal, and 127 for what there is not.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_vmm::control::EndReason;
use isolab_vmm::machine::RunReport;

/// The guest's kernel gave up: as an abort(3).
pub const PANICKED: i32 = 134;
/// Somebody pulled the plug: as kill -9.
pub const FORCED: i32 = 137;
/// Firmware found nothing to start.
pub const NOTHING_TO_START: i32 = 127;

/// What is kept of the console: room for a panic's registers and call trace.
const TAIL: usize = 16 << 10;

/// The last that a guest wrote to its console, where its kernel and its firmware say what they
/// died of.
#[derive(Clone, Default)]
pub struct LastWords(Arc<Mutex<Vec<u8>>>);

impl LastWords {
    /// Passes on to `output` and remembers the end of it.
    pub fn of(&self, output: impl Write + Send + 'static) -> impl Write + Send + 'static {
        Remembered { output, last: self.clone() }
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A guest's bytes go to a terminal: no escape sequences.
        let printable = |c: &char| !c.is_control() || *c == '\n';
        String::from_utf8_lossy(&bytes).chars().filter(printable).collect()
    }
}

struct Remembered<W> {
    output: W,
    last: LastWords,
}

impl<W: Write> Write for Remembered<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        let mut last = self.last.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.extend_from_slice(&bytes[..written]);
        // Not at every line: the rest has to be moved.
        if last.len() > 2 * TAIL {
            let excess = last.len() - TAIL;
            last.drain(..excess);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// What the operator is told, if anything, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub message: Option<String>,
    pub status: i32,
}

/// Judges an end by its reason and by the guest's last words; without one, isolab has failed.
pub fn judge(report: Option<&RunReport>, last_words: &LastWords, firmware: bool) -> Verdict {
    let Some(report) = report else {
        return Verdict { message: None, status: EXIT_OWN_FAILURE.into() };
    };
    let triple_fault = report.triple_fault.as_ref().map(ToString::to_string);
    judge_words(report.reason, triple_fault, &last_words.text(), firmware)
}

fn judge_words(
    reason: EndReason,
    triple_fault: Option<String>,
    text: &str,
    firmware: bool,
) -> Verdict {
    let panic = panic_in(text);
    let (message, status) = match reason {
        EndReason::Stopped => {
            let panic = panic.map(|why| format!(" after its kernel panicked: {why}"));
            let message = format!("the machine was ended by force{}", panic.unwrap_or_default());
            (Some(message), FORCED)
        }
        EndReason::PowerOff => (None, 0),
        EndReason::Reset => match (panic, triple_fault) {
            (Some(why), _) => (Some(format!("the guest's kernel panicked: {why}")), PANICKED),
            (None, Some(fault)) => (Some(format!("the guest reset itself: {fault}")), 0),
            (None, None) if firmware && found_nothing(text) => {
                (Some("the firmware found nothing to start".to_owned()), NOTHING_TO_START)
            }
            (None, None) => (None, 0),
        },
    };
    Verdict { message, status }
}

/// Why a kernel panicked (Linux, kernel/panic.c), with or without a time before it.
fn panic_in(text: &str) -> Option<&str> {
    fn message(line: &str) -> Option<&str> {
        let after_time = line.split_once("] ").filter(|(time, _)| time.starts_with('['));
        let line = after_time.map_or(line, |(_, rest)| rest);
        line.strip_prefix("Kernel panic - not syncing: ")
    }
    text.lines().rev().find_map(message)
}

/// What SeaBIOS prints before it waits and resets (src/boot.c), with nothing started since.
fn found_nothing(text: &str) -> bool {
    const WORDS: &str = "No bootable device.";
    text.lines().rev().find(|line| !line.trim().is_empty()).is_some_and(|l| l.contains(WORDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reason: EndReason, text: &str, firmware: bool) -> (Option<String>, i32) {
        let verdict = judge_words(reason, None, text, firmware);
        (verdict.message, verdict.status)
    }

    #[test]
    fn ends_that_are_none_of_the_guests_doing_or_its_undoing_are_told_apart() {
        use EndReason::{PowerOff, Reset, Stopped};
        let panic = "[    1.5] Kernel panic - not syncing: VFS: Unable to mount root\n\
                     [    1.6] CPU: 0 PID: 1\n";
        let none = "Booting from Hard Disk...\nNo bootable device.  Retrying in 60 seconds.\n";
        let nothing = |text: &str| (Some(text.to_owned()), NOTHING_TO_START);
        for (reason, text, firmware, expected) in [
            (PowerOff, "", false, (None, 0)),
            (PowerOff, panic, false, (None, 0)),
            (Reset, "", false, (None, 0)),
            (
                Reset,
                panic,
                false,
                (Some("the guest's kernel panicked: VFS: Unable to mount root".into()), PANICKED),
            ),
            (Reset, "a log says: Kernel panic - not syncing: x\n", false, (None, 0)),
            (Reset, none, true, nothing("the firmware found nothing to start")),
            (Reset, none, false, (None, 0)),
            (Reset, &format!("{none}Welcome\n"), true, (None, 0)),
            (Stopped, "", false, (Some("the machine was ended by force".into()), FORCED)),
        ] {
            assert_eq!(status(reason, text, firmware), expected, "{reason:?}, {text}");
        }
        let forced = status(Stopped, "Kernel panic - not syncing: sysrq\n", false);
        assert!(forced.0.unwrap().ends_with("panicked: sysrq") && forced.1 == FORCED);
        let fault = judge_words(Reset, Some("vCPU 0: triple fault".into()), "", false);
        assert_eq!(fault.message.unwrap(), "the guest reset itself: vCPU 0: triple fault");
        assert_eq!(fault.status, 0);
    }

    #[test]
    fn the_end_of_the_console_is_kept_and_nothing_that_moves_a_cursor() {
        let words = LastWords::default();
        let mut output = words.of(Vec::new());
        for _ in 0..10_000 {
            output.write_all(b"0123456789\n").unwrap();
        }
        output.write_all(b"\x1b[2JKernel panic - not syncing: x\r\n").unwrap();
        assert!(words.0.lock().unwrap().len() <= 2 * TAIL + 64);
        assert!(words.text().ends_with("[2JKernel panic - not syncing: x\n"));
    }
}
