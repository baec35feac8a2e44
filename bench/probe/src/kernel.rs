//! Into the kernel and back.

use std::hint::black_box;
use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::unistd::getppid;

use crate::clock::each;

/// A system call that does next to nothing: getppid(2), whose answer the C library does not keep.
pub fn system_call(operations: u32) -> io::Result<f64> {
    each(operations, || {
        black_box(getppid());
        Ok(())
    })
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// A signal to itself: sent, its handler entered and left.
pub fn signal(operations: u32) -> io::Result<f64> {
    let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, which is safe in any context; nobody else here handles SIGUSR1.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    each(operations, || Ok(raise(Signal::SIGUSR1)?))
}
