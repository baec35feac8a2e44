//! A VMM that runs, seen from its guest's console.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use isolab_isolation::timeline;

use super::MachinesError;
use crate::subjects::MachineSubject;
use crate::subjects::machine::Boot;

/// Far longer than any start, on an emulated host that is busy as well; a guest that has not come
/// up by then will not.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// A VMM that runs. Killed when dropped.
pub struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    subject: &'static str,
    /// The console's lines, each with the time it came.
    lines: mpsc::Receiver<(u64, String)>,
    console: String,
    messages: tempfile::NamedTempFile,
    deadline: Instant,
    reboot_code: i32,
}

impl Run {
    /// Starts `subject`; `stdin` is what the guest's console reads.
    pub fn start(
        subject: &MachineSubject,
        boot: &Boot,
        stdin: Stdio,
    ) -> Result<Self, MachinesError> {
        let name = subject.name;
        let host = |action| move |source| MachinesError::Host { action, subject: name, source };
        let messages = tempfile::NamedTempFile::new().map_err(host("keep the messages of"))?;
        let mut command = subject.command(boot).map_err(host("configure"))?;
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(messages.reopen().map_err(host("keep the messages of"))?);
        let mut child = command.spawn().map_err(host("start"))?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = Vec::new();
                while stdout.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    if sender.send((timeline::now(), text)).is_err() {
                        break;
                    }
                    line.clear();
                }
            });
        }
        let (stdin, deadline) = (child.stdin.take(), Instant::now() + TIME_LIMIT);
        let console = String::new();
        let reboot_code = subject.machine.reboot_code;
        Ok(Self { child, stdin, subject: name, lines, console, messages, deadline, reboot_code })
    }

    /// Process id of the VMM.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the console that contains `text`: when it came.
    pub fn wait_for(&mut self, text: &str) -> Result<u64, MachinesError> {
        self.wait_for_line(|line| line.contains(text)).map(|(time, _)| time)
    }

    /// Waits for a line of the console that `wanted` wants, and when it came.
    pub fn wait_for_line(
        &mut self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(u64, String), MachinesError> {
        loop {
            match self.next_line() {
                // One without its end is the last thing that a VMM said before it was gone.
                Ok((time, line)) if line.ends_with('\n') && wanted(&line) => {
                    return Ok((time, line));
                }
                Ok((_, line)) => self.console.push_str(&line),
                Err(error) => {
                    let how = self.how_it_ended(error);
                    return Err(self.silent(how));
                }
            }
        }
    }

    /// Writes a line to the console, and gives the guest `limit` for what it is to answer.
    pub fn send(&mut self, line: &str, limit: Duration) -> Result<(), MachinesError> {
        self.deadline = Instant::now() + limit;
        let Some(stdin) = &mut self.stdin else {
            return Err(self.silent("it does not listen".to_owned()));
        };
        if let Err(error) = writeln!(stdin, "{line}").and_then(|()| stdin.flush()) {
            return Err(self.silent(error.to_string()));
        }
        Ok(())
    }

    /// The error of a guest that did not say what it should; `how` it ended, or that it did not.
    fn silent(&self, how: String) -> MachinesError {
        let said = self.console.clone() + &self.messages();
        MachinesError::NotUp { subject: self.subject, how, said }
    }

    /// Waits for the end of the VMM, which must be a good one.
    pub fn wait_for_end(&mut self) -> Result<(), MachinesError> {
        let error = loop {
            match self.next_line() {
                Ok((_, line)) => self.console.push_str(&line),
                Err(error) => break error,
            }
        };
        let status = match error {
            RecvTimeoutError::Disconnected => self.child.wait().ok(),
            RecvTimeoutError::Timeout => None,
        };
        if status.is_some_and(|status| status.code() == Some(self.reboot_code)) {
            return Ok(());
        }
        let how = status.map_or_else(|| self.how_it_ended(error), |status| status.to_string());
        Err(MachinesError::NotDown { subject: self.subject, how, said: self.messages() })
    }

    fn next_line(&self) -> Result<(u64, String), RecvTimeoutError> {
        self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now()))
    }

    fn how_it_ended(&mut self, error: RecvTimeoutError) -> String {
        if error == RecvTimeoutError::Timeout {
            return "it was still running at the end of its time".to_owned();
        }
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    fn messages(&self) -> String {
        std::fs::read_to_string(self.messages.path()).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
