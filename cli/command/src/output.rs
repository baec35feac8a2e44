//! What the commands print, once for all of them.
//!
//! `print!`, `println!`, `eprint!` and `eprintln!` are the ones below (an executable takes them by
//! `#[macro_use] extern crate isolab_command`), not std's, which panic where the other side of a pipe has gone. Here a reader that has seen enough (`isolab image ls |
//! head -1`) is no failure: the rest is not printed. Any other failure of standard output, such as
//! a full disk, is told at the end, and by the exit code.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints facts to standard output.
pub fn print(text: fmt::Arguments<'_>) {
    if FAILURE.get().is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        // The first one counts.
        let _ = FAILURE.set(error);
    }
}

/// Prints a message to standard error. If nobody is there to read it, there is nobody to tell.
pub fn tell(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Why not everything was printed that should have been.
pub fn failure() -> Option<&'static io::Error> {
    FAILURE.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// As std's, without its panic.
#[macro_export]
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($argument:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($argument)*))) };
}

/// As std's, without its panic.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::output::print(format_args!($($argument)*)) };
}

/// As std's, without its panic.
#[macro_export]
macro_rules! eprint {
    ($($argument:tt)*) => { $crate::output::tell(format_args!($($argument)*)) };
}

/// As std's, without its panic.
#[macro_export]
macro_rules! eprintln {
    ($($argument:tt)*) => { $crate::output::tell(format_args!("{}\n", format_args!($($argument)*))) };
}
