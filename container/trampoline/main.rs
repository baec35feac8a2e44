//! The last step before a container's program: a static executable of a page, in a sealed memory file.
//!
//! The process that leaves the runtime executes this, and this executes the program. So what the program, or the
//! kernel on its behalf, finds at `/proc/self/exe` at that moment is not the runtime's own executable on the host's
//! disk, which an image could have started with a loader of its own, kept open and overwritten (CVE-2019-5736), but
//! these bytes, which nobody can write.
//!
//! Arguments (see `src/process/trampoline.rs`): the descriptor of the channel to the runtime, in decimal, behind an `i`
//! where an init is wanted; the paths to try, in order; an empty string; the program's own arguments. The environment
//! is the program's own. As an init (`init.rs`), this stays, and the program is its child.
//!
//! Whoever executes it again, because the image's command leads to `/proc/self/exe`, finds that there is no channel
//! any more.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

mod init;
#[path = "../src/wire.rs"]
mod wire;

const SYS_WRITE: usize = 1;
const SYS_IOCTL: usize = 16;
const FIOCLEX: usize = 0x5451;
const SYS_ACCESS: usize = 21;
const F_OK: usize = 0;
const SYS_SENDTO: usize = 44;
const SYS_EXECVE: usize = 59;
const SYS_EXIT_GROUP: usize = 231;
const SYS_FCNTL: usize = 72;
const F_SETFD: usize = 2;
const FD_CLOEXEC: usize = 1;
const MSG_NOSIGNAL: usize = 0x4000;
const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;

const ENTERED_AGAIN: &str = "isolab: the container's command leads to /proc/self/exe, which is no program of its own\n";

/// A pointer into an array of C strings that ends with a null pointer.
type Strings = *const *const u8;

// The kernel enters with the stack pointer at argc (System V ABI for x86-64, "Initial Stack and Register State").
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {run}",
    "ud2",
    run = sym run,
);

/// # Safety
/// `stack` is the initial stack: argc, then argv and envp, each ended by a null pointer.
unsafe extern "C" fn run(stack: Strings) -> ! {
    // SAFETY: argv follows argc. `parse` and `skip` read up to the null pointers, not beyond.
    let (is_init, channel, candidates, arguments) = match unsafe { parse(stack.add(1)) } {
        Some(parsed) => parsed,
        None => entered_again(),
    };
    // What is there is the channel: all else above stderr was closed on the way here.
    // SAFETY: fcntl takes integers.
    let marked = unsafe { call(SYS_FCNTL, [channel, F_SETFD, FD_CLOEXEC, 0, 0, 0]) };
    if marked as i32 == -EBADF {
        entered_again();
    }
    if marked != 0 {
        // The container's seccomp filter is in force, and denies it. This does the same.
        // SAFETY: the request takes no argument.
        unsafe { call(SYS_IOCTL, [channel, FIOCLEX, 0, 0, 0, 0]) };
    }
    let forked = if is_init { init::fork_program(channel) } else { 0 };
    if forked < 0 {
        fail(channel, -forked as i32);
    }
    // SAFETY: the arguments are ended by a null pointer, and envp is behind it.
    let environment = unsafe { skip(arguments) };
    // SAFETY: all three are what the kernel put on the stack for us.
    let errno = unsafe { execute(candidates, arguments, environment) };
    fail(channel, errno)
}

/// Tells the runtime why the program is not executed.
fn fail(channel: usize, errno: i32) -> ! {
    let report: [u32; 3] = [wire::EXEC_FAILED, 0, errno as u32];
    let (start, length) = (&raw const report as usize, size_of_val(&report));
    // SAFETY: the kernel reads `length` bytes of the report. A runtime that has died hears nothing, and need not.
    unsafe { call(SYS_SENDTO, [channel, start, length, MSG_NOSIGNAL, 0, 0]) };
    exit(if errno == ENOENT || errno == ENOTDIR { 127 } else { 126 })
}

/// Takes the arguments apart: whether an init is wanted, channel, candidates, the program's arguments.
///
/// # Safety
/// `argv` is ended by a null pointer and holds C strings.
unsafe fn parse(argv: Strings) -> Option<(bool, usize, Strings, Strings)> {
    // SAFETY: as the caller promises; nothing is read beyond the null pointer or the strings' ends.
    unsafe {
        let first = *argv;
        let is_init = !first.is_null() && *first == b'i';
        let channel = decimal(if is_init { first.add(1) } else { first })?;
        let candidates = argv.add(1);
        let mut end = candidates;
        while !(*end).is_null() {
            if **end == 0 {
                return Some((is_init, channel, candidates, end.add(1)));
            }
            end = end.add(1);
        }
    }
    None
}

/// # Safety
/// `text` is null or a C string.
unsafe fn decimal(mut text: *const u8) -> Option<usize> {
    if text.is_null() {
        return None;
    }
    let mut number: usize = 0;
    // SAFETY: reads up to the terminating zero.
    unsafe {
        if *text == 0 {
            return None;
        }
        while *text != 0 {
            if !(*text).is_ascii_digit() || number > 1 << 24 {
                return None;
            }
            number = number * 10 + (*text - b'0') as usize;
            text = text.add(1);
        }
    }
    Some(number)
}

/// The pointer behind the null pointer that ends `strings`.
///
/// # Safety
/// There is one.
unsafe fn skip(mut strings: Strings) -> Strings {
    // SAFETY: stops at the null pointer.
    unsafe {
        while !(*strings).is_null() {
            strings = strings.add(1);
        }
        strings.add(1)
    }
}

/// Executes the first candidate that can be, as execvp(3) does. Returns only on failure: ENOENT when there is none.
///
/// # Safety
/// The candidates are ended by an empty string, the arguments and the environment by a null pointer.
unsafe fn execute(mut candidates: Strings, arguments: Strings, environment: Strings) -> i32 {
    let mut errno = ENOENT;
    // SAFETY: as the caller promises.
    unsafe {
        while **candidates != 0 {
            let path = *candidates as usize;
            // An execve that finds nothing has made an address space all the same, which takes six times as long.
            let mut result = call(SYS_ACCESS, [path, F_OK, 0, 0, 0, 0]);
            // Denied by the filter, access says nothing.
            if !matches!(-result as i32, ENOENT | ENOTDIR) {
                result = call(SYS_EXECVE, [path, arguments as usize, environment as usize, 0, 0, 0]);
            }
            match -result as i32 {
                ENOENT | ENOTDIR => {}
                EACCES => errno = EACCES,
                fatal => return fatal,
            }
            candidates = candidates.add(1);
        }
    }
    errno
}

fn entered_again() -> ! {
    // SAFETY: the kernel reads the text.
    unsafe {
        call(SYS_WRITE, [2, ENTERED_AGAIN.as_ptr() as usize, ENTERED_AGAIN.len(), 0, 0, 0]);
    }
    exit(126)
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { call(SYS_EXIT_GROUP, [code, 0, 0, 0, 0, 0]) };
    }
}

/// # Safety
/// That of the system call.
unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let result: isize;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the kernel's calling convention on x86-64; it changes rax, rcx and r11 besides what the call is for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit(125)
}
