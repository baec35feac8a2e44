//! The operator's terminal: raw while a machine or a workload has it, restored afterwards whatever happens.

use std::io::{self, IsTerminal, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::termios::{self, SetArg, Termios};

/// The terminal's settings before, if standard input is a terminal. In a static because a panic
/// on any thread has to restore them, too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal on standard input, raw until this is dropped.
pub struct RawTerminal(());

impl RawTerminal {
    /// Puts a terminal into raw mode; anything else on standard input is left alone.
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

    /// Whether standard input is a terminal.
    pub fn is_there(&self) -> bool {
        lock().is_some()
    }
}

impl Drop for RawTerminal {
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

fn restore() {
    if let Some(settings) = lock().take() {
        // Nothing can be done about a terminal that has gone.
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

/// Standard output without a buffer, for who gathers lines itself, or shows what keys do.
pub struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
