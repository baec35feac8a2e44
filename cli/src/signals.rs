//! Signals to a machine, taken by a thread instead of a handler.

use std::{io, mem, ptr};

use isolab_vmm::threads;

const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Signals that are blocked and wait to be taken.
pub struct Blocked(libc::sigset_t);

/// Blocks the signals that end a process, and `further` ones, for the calling thread and all threads it will start.
///
/// # Errors
/// None is expected.
pub fn block(further: &[libc::c_int]) -> io::Result<Blocked> {
    // SAFETY: `sigset_t` is plain data, and `sigemptyset` gives it its value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is live and writable, and the signal numbers exist.
    let result = unsafe {
        libc::sigemptyset(&mut set);
        for &signal in ENDING.iter().chain(further) {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut())
    };
    if result == 0 { Ok(Blocked(set)) } else { Err(io::Error::from_raw_os_error(result)) }
}

impl Blocked {
    /// Calls `action` with each of the signals that arrives, one after the other.
    ///
    /// # Errors
    /// The host refused a thread.
    pub fn on_arrival(
        self,
        mut action: impl FnMut(libc::c_int) + Send + 'static,
    ) -> io::Result<()> {
        let body = move || {
            let set = self.0;
            loop {
                let mut signal = 0;
                // SAFETY: both pointers are live for the call.
                if unsafe { libc::sigwait(&set, &mut signal) } == 0 {
                    action(signal);
                }
            }
        };
        threads::builder("signals").spawn(body).map(drop)
    }
}
