//! The operator's terminal as a guest's console: raw while the machine runs, restored afterwards
//! whatever happens, with QEMU's Ctrl-a keys.

use std::fs::File;
use std::io::{self, IsTerminal, PipeWriter, Read, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, TrySendError};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isolab_vmm::threads;
use nix::sys::termios::{self, SetArg, Termios};

const CTRL_A: u8 = 0x01;

const HELP: &str = "\r\n\
    Ctrl-a h      this help\r\n\
    Ctrl-a x      end the machine\r\n\
    Ctrl-a Ctrl-a send Ctrl-a to the guest\r\n";

/// The terminal's settings before, if standard input is a terminal. In a static because a panic
/// on any thread has to restore them, too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input and output as a console, until dropped.
pub struct Console(());

impl Console {
    /// Puts a terminal into raw mode; anything else is left alone.
    ///
    /// # Errors
    /// The terminal refused.
    pub fn open() -> io::Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self(()));
        }
        let before = make_raw(io::stdin())?;
        *lock() = Some(before);
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            default(info);
        }));
        Ok(Self(()))
    }

    /// What the guest reads. On a terminal, the keys in between are to be [`Keys::watch`]ed.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn input(&self) -> io::Result<(OwnedFd, Option<Keys>)> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        if lock().is_none() {
            return Ok((stdin, None));
        }
        let (read, write) = io::pipe()?;
        Ok((read.into(), Some(Keys { terminal: stdin.into(), guest: write })))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        restore();
    }
}

/// Has a terminal carry bytes as they are (termios(3), "Raw mode"), and gives its settings before.
pub fn make_raw(terminal: impl AsFd) -> nix::Result<Termios> {
    let before = termios::tcgetattr(&terminal)?;
    let mut raw = before.clone();
    termios::cfmakeraw(&mut raw);
    // At once: a terminal that was stopped by Ctrl-S would have us wait for its output.
    termios::tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
    Ok(before)
}

fn lock() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing can be done about a terminal that has gone.
fn restore() {
    if let Some(settings) = lock().take() {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &settings);
    }
}

/// Columns and rows of the terminal on standard output.
pub fn size() -> Option<(u16, u16)> {
    // SAFETY: `winsize` is plain data, which TIOCGWINSZ fills.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: the pointer is live and writable.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (result == 0).then_some((size.ws_col, size.ws_row))
}

/// Unbuffered standard output: the VMM gathers lines itself.
pub struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the pointer and length are those of a live slice.
        let written =
            unsafe { libc::write(libc::STDOUT_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
