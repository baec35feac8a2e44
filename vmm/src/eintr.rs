//! System calls that a signal interrupted.

use std::io;

/// Makes `call` until no signal interrupts it. The kick of a vCPU is the only signal that means
/// something here, and no thread but a vCPU's gets it.
///
/// # Errors
/// Those of `call` but `EINTR`.
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
