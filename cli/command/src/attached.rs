//! Sitting at an instance: its output is ours, what is typed here goes there, and the detach keys end it.

use std::fs::File;
use std::io::{self, IsTerminal, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, thread};

use anyhow::{Context, Result, bail};
use isolab_instances::{Asides, Instance, InstanceError, Session, Streams};
use isolab_isolation::WindowSize;

use crate::signals::{self, Blocked};
use crate::terminal::{self, RawTerminal};

/// The keys that leave an instance running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    text: String,
    bytes: Vec<u8>,
}

impl Default for DetachKeys {
    /// Docker's and podman's.
    fn default() -> Self {
        Self { text: "ctrl-p,ctrl-q".to_owned(), bytes: vec![0x10, 0x11] }
    }
}

impl fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for DetachKeys {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = |word: &str| match word.as_bytes() {
            [key] if key.is_ascii_graphic() => Ok(*key),
            [b'c', b't', b'r', b'l', b'-', key] => match key {
                b'a'..=b'z' => Ok(key - b'a' + 1),
                b'@'..=b'_' => Ok(key - b'@'),
                _ => Err("ctrl- goes with a-z @ [ \\ ] ^ _"),
            },
            _ => Err("expected keys such as ctrl-p,ctrl-q"),
        };
        let words = text.split(',').filter(|_| !text.is_empty());
        Ok(Self { text: text.to_owned(), bytes: words.map(key).collect::<Result<_, _>>()? })
    }
}

/// Looks for the detach keys in what is typed.
struct Filter {
    keys: Vec<u8>,
    /// How many of them were typed last, and are held back.
    matched: usize,
}

impl Filter {
    /// What is to be passed on, and whether all of the keys have come.
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + self.matched);
        for &byte in typed {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(&byte));
            if self.matched == 0 {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

/// Ready to sit at an instance.
pub struct Attached {
    terminal: bool,
    keys: DetachKeys,
    /// Where the instance reads what is typed, and where it is put.
    input: Option<(OwnedFd, PipeWriter)>,
    signals: Blocked,
}

impl Attached {
    /// For an instance as it was made.
    ///
    /// # Errors
    /// It has a terminal, and we have none.
    pub fn new(instance: &Instance, stdin: bool, keys: &DetachKeys) -> Result<Self> {
        let config = instance.config.as_ref();
        let terminal = config.is_some_and(|config| config.terminal);
        let stdin = stdin && config.is_some_and(|config| config.interactive);
        if terminal && stdin && !io::stdin().is_terminal() {
            bail!("the instance has a terminal, and standard input is none");
        }
        let pipe = stdin.then(io::pipe).transpose().context("cannot make a pipe")?;
        // Before any thread exists, so that all of them inherit the mask.
        let signals = signals::block(&signals::passed_on()).context("cannot block signals")?;
        let input = pipe.map(|(reader, writer)| (reader.into(), writer));
        Ok(Self { terminal, keys: keys.clone(), input, signals })
    }

    /// Has `begin` start the instance, or attach to it, and stays until its end, which is our own: its
    /// exit code.
    ///
    /// # Errors
    /// As `begin`.
    pub fn run(
        self,
        begin: impl FnOnce(&Streams) -> Result<Session, InstanceError>,
    ) -> Result<ExitCode> {
        let Self { terminal, keys, input, signals } = self;
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let (theirs, ours) = input.unzip();
        let session = begin(&Streams {
            stdin: theirs.as_ref().map(AsFd::as_fd),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
        })?;
        drop(theirs);
        let raw = (terminal && ours.is_some()).then(RawTerminal::open).transpose();
        let raw = raw.context("cannot set the terminal up")?;
        let detached = Arc::new(AtomicBool::new(false));
        if let Some(input) = ours {
            let (filter, asides) = (Filter { keys: keys.bytes, matched: 0 }, session.aside()?);
            let detached = Arc::clone(&detached);
            let is_typed = io::stdin().is_terminal();
            let body = move || type_into(input, filter, is_typed, || leave(&asides, &detached));
            thread::Builder::new().name("keys".to_owned()).spawn(body).context("cannot type")?;
        }
        follow_signals(signals, session.aside()?, terminal)?;
        let ended = session.wait();
        drop(raw);
        match ended {
            Err(InstanceError::SupervisorKilled(_)) if detached.load(Ordering::SeqCst) => {
                Ok(ExitCode::SUCCESS)
            }
            ended => Ok(ExitCode::from(u8::try_from(ended?).unwrap_or(u8::MAX))),
        }
    }
}

fn leave(asides: &Asides, detached: &AtomicBool) {
    detached.store(true, Ordering::SeqCst);
    asides.detach();
}

/// Copies standard input, until its end or the detach keys.
fn type_into(mut input: impl Write, mut filter: Filter, is_typed: bool, leave: impl Fn()) {
    let mut read = [0; 4096];
    while let Ok(length @ 1..) = io::stdin().read(&mut read) {
        let (typed, leaves) = match is_typed {
            true => filter.pass(&read[..length]),
            false => (read[..length].to_vec(), false),
        };
        if input.write_all(&typed).and_then(|()| input.flush()).is_err() {
            return;
        }
        if leaves {
            leave();
            return;
        }
    }
}

/// The signals that come to us go to the workload, and what the terminal says of its size.
fn follow_signals(signals: Blocked, asides: Asides, terminal: bool) -> Result<()> {
    let resize = move |asides: &Asides| {
        if let Some((columns, rows)) = terminal::size().filter(|_| terminal) {
            asides.resize(WindowSize { rows, columns });
        }
    };
    resize(&asides);
    let action = move |signal| match signal {
        libc::SIGWINCH if terminal => resize(&asides),
        signal => asides.signal(signal),
    };
    signals.on_arrival(action).context("cannot wait for signals")
}

/// Sits at a further process that has a terminal of its own, whose other end is `theirs`.
///
/// # Errors
/// The process was lost.
pub fn sit_at(session: &Session, theirs: OwnedFd, stdin: bool, signals: Blocked) -> Result<i32> {
    let raw = stdin.then(RawTerminal::open).transpose().context("cannot set the terminal up")?;
    let mut output = File::from(theirs);
    if stdin {
        let input = output.try_clone().context("cannot duplicate a terminal")?;
        let filter = Filter { keys: Vec::new(), matched: 0 };
        let body = move || type_into(input, filter, false, || {});
        thread::Builder::new().name("keys".to_owned()).spawn(body).context("cannot type")?;
    }
    follow_signals(signals, session.aside()?, true)?;
    let shown = thread::spawn(move || {
        // At its end it is EIO, or nothing.
        let _ = io::copy(&mut output, &mut terminal::Output);
    });
    let ended = session.wait();
    if ended.is_ok() {
        // What it wrote last is on its way.
        let _ = shown.join();
    }
    drop(raw);
    Ok(ended?)
}

/// How large our terminal is, or would be.
pub fn size() -> WindowSize {
    let (columns, rows) = terminal::size().unwrap_or((80, 24));
    WindowSize { rows, columns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_podman_s() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.bytes);
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(DetachKeys::default().bytes));
        assert_eq!(keys("a,ctrl-[,ctrl-@"), Ok(vec![b'a', 0x1b, 0]));
        assert_eq!(keys(""), Ok(vec![]));
        for bad in ["ctrl-", "ctrl-1", "ab", ",", "ctrl-p,", "ü"] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_keys_are_found_wherever_reads_end_and_nothing_else_is_lost() {
        let mut filter = Filter { keys: vec![1, 2], matched: 0 };
        assert_eq!(filter.pass(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(filter.pass(b"c\x01"), (b"c".to_vec(), false));
        assert_eq!(filter.pass(b"\x01x"), (b"\x01\x01x".to_vec(), false));
        assert_eq!(filter.pass(b"y\x01"), (b"y".to_vec(), false));
        assert_eq!(filter.pass(b"\x02z"), (b"".to_vec(), true));
        let mut none = Filter { keys: vec![], matched: 0 };
        assert_eq!(none.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
