//! Ending a process that holds a VM without waiting for the kernel to take the VM apart.
//!
//! Closing a VM takes tens of milliseconds (grace periods of SRCU, kernel threads that end), and
//! normally a process's parent learns of its end only after that. Memory and files last as long
//! as the last task that shares them: so a helper task is made that shares both and does nothing,
//! this process exits at once, and the helper, which ends when all threads of its parent have, takes the
//! VM with it in its own time.

use std::time::Duration;
use std::{io, process, ptr, thread};

use crate::threads;

const STACK: usize = 16 << 10;

/// Exits with `code`. Standard input, output and error are closed first, lest a reader at the
/// other end waits for the helper.
///
/// Runs no destructors; everything worth keeping has to be flushed before.
pub fn exit_now(code: i32) -> ! {
    // Without the helper the exit is merely slower.
    if start_helper().is_ok() {
        // SAFETY: nothing uses these descriptors between here and the exit but other threads'
        // output, which may be lost at an exit in any case.
        unsafe {
            for fd in 0..3 {
                libc::close(fd);
            }
        }
    }
    process::exit(code)
}

/// Exits with `code` after `timeout`, whatever the process is doing then; for one that is to end and
/// has things to do that may never be done, such as a last line for a reader that does not read.
pub fn exit_within(timeout: Duration, code: i32) {
    let wait = move || {
        thread::sleep(timeout);
        exit_now(code)
    };
    if threads::builder("exit").spawn(wait).is_err() {
        exit_now(code);
    }
}

fn start_helper() -> io::Result<()> {
    // The helper has it by CLONE_FILES. It is not closed: whoever is last to go closes everything.
    // SAFETY: the call takes numbers only.
    let parent = unsafe { libc::syscall(libc::SYS_pidfd_open, process::id(), 0) };
    let parent = i32::try_from(parent).ok().filter(|fd| *fd >= 0);
    let parent = parent.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let stack = unsafe {
        libc::mmap(
            ptr::null_mut(),
            STACK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
            -1,
            0,
        )
    };
    if stack == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `wait_for_parent` runs on a stack of its own that is never unmapped, makes system
    // calls only, and never returns. It shares this thread's TLS, in which it touches at most
    // errno. The descriptor is passed by value, in the pointer.
    let child = unsafe {
        libc::clone(
            wait_for_parent,
            stack.byte_add(STACK),
            libc::CLONE_VM | libc::CLONE_FILES,
            ptr::without_provenance_mut(parent as usize),
        )
    };
    if child < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Until every thread of the parent has ended, not only the one that made us, as PR_SET_PDEATHSIG would
/// have it: a thread that takes longer, such as one that io_uring holds, would be the last to share
/// memory and files, and the parent's end would wait for it to take the VM apart.
extern "C" fn wait_for_parent(parent: *mut libc::c_void) -> libc::c_int {
    // pidfd_open(2): readable when the process has terminated.
    let mut parent = libc::pollfd { fd: parent.addr() as i32, events: libc::POLLIN, revents: 0 };
    // SAFETY: `parent` lives on this task's own stack, and is one entry.
    unsafe {
        while libc::poll(&mut parent, 1, -1) < 0 {}
        libc::_exit(0)
    }
}
