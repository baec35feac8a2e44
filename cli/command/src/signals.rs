//! Signals to a machine or a workload: their names, and taken by a thread instead of a handler.

use std::{io, mem, ptr, thread};

/// Signals that are for ourselves, as for podman's `--sig-proxy`: what a process learns about its own
/// children, sockets and pipes. Besides, what the terminal says of its background processes, and
/// faults, which are ours where a program's own instruction raises them.
const OURS: [libc::c_int; 14] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGURG,
    libc::SIGPIPE,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
];

/// The signals that go to the workload. Real-time ones too (systemd powers off by one), but for the
/// first, by which threads of a monitor interrupt each other (`isolab_vmm`'s vCPUs).
pub fn passed_on() -> Vec<libc::c_int> {
    let ordinary = (1..32).filter(|signal| !OURS.contains(signal));
    ordinary.chain(libc::SIGRTMIN() + 1..=libc::SIGRTMAX()).collect()
}

/// Lets the kernel tell us of our children's ends again, where whoever started us ignored SIGCHLD: they
/// would be gone before we can ask how they ended (sigaction(2), wait(2)).
pub fn hear_of_children() {
    // SAFETY: SIG_DFL is no function, so that nothing runs in a handler; no thread exists yet.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// As `isolab_vmm`'s threads have it: the usual 2 MiB may be given a huge page at the first touch.
const STACK: usize = 512 << 10;

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
    /// One of them that has arrived, if one has.
    pub fn arrived(&self) -> Option<libc::c_int> {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both pointers are live for the call, and a null one asks for no more than the number.
        let signal = unsafe { libc::sigtimedwait(&self.0, ptr::null_mut(), &now) };
        (signal > 0).then_some(signal)
    }

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
        let thread = thread::Builder::new().name("signals".to_owned()).stack_size(STACK);
        thread.spawn(body).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_passes_on_is_passed_on() {
        let passed = passed_on();
        for signal in [1, 2, 3, 10, 12, 14, 15, 16, 18, 20, 23 + 1, 25, 26, 27, 28, 29, 30] {
            assert!(passed.contains(&signal), "{signal}");
        }
        assert!(passed.contains(&(libc::SIGRTMIN() + 3)) && passed.contains(&libc::SIGRTMAX()));
        for signal in OURS {
            assert!(!passed.contains(&signal), "{signal}");
        }
        // glibc keeps these for its threads.
        assert!(!passed.contains(&32) && !passed.contains(&33));
    }
}
