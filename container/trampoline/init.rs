//! The first process of a container that is asked for an init: the program's parent, which passes signals on to it and
//! reaps what others leave. It ends as the program does.

use crate::{call, exit};

const SYS_CLOSE: usize = 3;
const SYS_RT_SIGPROCMASK: usize = 14;
const SYS_IOCTL: usize = 16;
const SYS_GETPID: usize = 39;
const SYS_FORK: usize = 57;
const SYS_WAIT4: usize = 61;
const SYS_KILL: usize = 62;
const SYS_SETPGID: usize = 109;
const SYS_RT_SIGTIMEDWAIT: usize = 128;
const SYS_PRCTL: usize = 157;

const SIG_SETMASK: usize = 2;
const SIGCHLD: isize = 17;
const WNOHANG: usize = 1;
const TIOCSPGRP: usize = 0x5410;
const PR_SET_NAME: usize = 15;

/// The size of the kernel's set of signals, in bytes.
const SET_SIZE: usize = 8;
const ALL: u64 = !0;
const NONE: u64 = 0;

/// Forks. Returns in the child, which is to execute the program, with 0; in the parent only when the fork failed,
/// with the negative errno.
pub(crate) fn fork_program(channel: usize) -> isize {
    // Whatever comes from now on waits until somebody asks for it.
    set_mask(&ALL);
    // SAFETY: fork takes nothing; there is one thread.
    let child = unsafe { call(SYS_FORK, [0; 6]) };
    if child > 0 {
        // The runtime waits until nobody has it any more.
        // SAFETY: the channel is not used again here.
        unsafe { call(SYS_CLOSE, [channel, 0, 0, 0, 0, 0]) };
        serve(child)
    }
    if child == 0 {
        // A process group of its own, which has the terminal where there is one: what is typed there is for the
        // program, once. SIGTTOU, which a background group is asked by, is blocked still.
        // SAFETY: integers, and the address of one that the kernel reads. Without a terminal the second fails, rightly.
        unsafe {
            call(SYS_SETPGID, [0; 6]);
            let group = call(SYS_GETPID, [0; 6]) as i32;
            call(SYS_IOCTL, [0, TIOCSPGRP, &raw const group as usize, 0, 0, 0]);
        }
    }
    set_mask(&NONE);
    child
}

fn set_mask(set: &u64) {
    // SAFETY: the kernel reads the set.
    unsafe { call(SYS_RT_SIGPROCMASK, [SIG_SETMASK, set as *const u64 as usize, 0, SET_SIZE, 0, 0]) };
}

fn serve(program: isize) -> ! {
    // SAFETY: the kernel reads the name.
    unsafe { call(SYS_PRCTL, [PR_SET_NAME, c"isolab-init".as_ptr() as usize, 0, 0, 0, 0]) };
    loop {
        let all: *const u64 = &ALL;
        // SAFETY: the kernel reads the set; it writes no details and waits without end.
        match unsafe { call(SYS_RT_SIGTIMEDWAIT, [all as usize, 0, 0, SET_SIZE, 0, 0]) } {
            SIGCHLD => reap(program),
            // SAFETY: integers only. A program that is gone needs no signal.
            signal if signal > 0 => unsafe {
                call(SYS_KILL, [program as usize, signal as usize, 0, 0, 0, 0]);
            },
            // Interrupted by a stop and a continuation.
            _ => {}
        }
    }
}

/// Reaps all that have ended. The kernel ends the rest with us.
fn reap(program: isize) {
    loop {
        let mut status: u32 = 0;
        let place = &raw mut status as usize;
        // SAFETY: the kernel writes one status. -1 is any child.
        let ended = unsafe { call(SYS_WAIT4, [usize::MAX, place, WNOHANG, 0, 0, 0]) };
        if ended <= 0 {
            return;
        }
        if ended == program {
            // wait(2): the signal in the lowest seven bits, or else the code in the next byte.
            let signal = status & 0x7f;
            exit(if signal != 0 { 128 + signal } else { status >> 8 & 0xff } as usize);
        }
    }
}
