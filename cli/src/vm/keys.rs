//! What is typed on the operator's terminal, on its way to a machine's console, with QEMU's Ctrl-a keys.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, TrySendError};

use isolab_command::terminal::{Output, RawTerminal};
use isolab_vmm::threads;

const CTRL_A: u8 = 0x01;

const HELP: &str = "\r\n\
    Ctrl-a h      this help\r\n\
    Ctrl-a x      end the machine\r\n\
    Ctrl-a Ctrl-a send Ctrl-a to the guest\r\n";

/// What the guest reads. On a terminal, the keys in between are to be [`Keys::watch`]ed.
///
/// # Errors
/// The host is out of file descriptors.
pub fn input(terminal: &RawTerminal) -> io::Result<(OwnedFd, Option<Keys>)> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    if !terminal.is_there() {
        return Ok((stdin, None));
    }
    let (read, write) = io::pipe()?;
    Ok((read.into(), Some(Keys { terminal: stdin.into(), guest: write })))
}

/// Reads of the terminal that wait for the guest: 256 KiB, when something is pasted.
const MAX_UNREAD: usize = 4 << 10;

/// Keys on their way from the terminal to the guest.
pub struct Keys {
    terminal: File,
    guest: PipeWriter,
}

impl Keys {
    /// Passes keys on, and calls `quit` at Ctrl-a x, also when the guest reads none of them.
    ///
    /// # Errors
    /// The host refused a thread.
    pub fn watch(self, quit: impl Fn() + Send + 'static) -> io::Result<()> {
        let Self { mut terminal, mut guest } = self;
        let (keys, pressed) = mpsc::sync_channel::<Vec<u8>>(MAX_UNREAD);
        let deliver =
            move || while pressed.recv().is_ok_and(|keys| guest.write_all(&keys).is_ok()) {};
        threads::builder("keys-guest").spawn(deliver)?;
        let body = move || {
            let mut filter = Filter::default();
            let mut read = [0; 64];
            while let Ok(length @ 1..) = terminal.read(&mut read) {
                let filtered = filter.pass(&read[..length]);
                if filtered.quit {
                    quit();
                }
                if filtered.help {
                    let _ = Output.write(HELP.as_bytes());
                }
                // What the guest has no ear for is lost, as a terminal's own queue would lose it.
                if let Err(TrySendError::Disconnected(_)) = keys.try_send(filtered.keys) {
                    break;
                }
            }
        };
        threads::builder("keys").spawn(body).map(drop)
    }
}

/// Recognises Ctrl-a sequences, which may be split between reads.
#[derive(Default)]
struct Filter {
    escaped: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Filtered {
    keys: Vec<u8>,
    quit: bool,
    help: bool,
}

impl Filter {
    fn pass(&mut self, keys: &[u8]) -> Filtered {
        let mut out = Filtered::default();
        for &key in keys {
            match (mem::take(&mut self.escaped), key) {
                (false, CTRL_A) => self.escaped = true,
                (true, b'x') => out.quit = true,
                (true, b'h' | b'?') => out.help = true,
                (true, CTRL_A) | (false, _) => out.keys.push(key),
                (true, _) => {}
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_a_is_the_escape() {
        let mut filter = Filter::default();
        assert_eq!(filter.pass(b"ab"), Filtered { keys: b"ab".into(), ..Filtered::default() });
        assert_eq!(filter.pass(b"c\x01").keys, b"c");
        assert_eq!(filter.pass(b"x"), Filtered { quit: true, ..Filtered::default() });
        assert_eq!(filter.pass(b"\x01hx"), Filtered { keys: b"x".into(), help: true, quit: false });
        assert_eq!(filter.pass(b"\x01\x01\x01zq").keys, b"\x01q");
    }
}
