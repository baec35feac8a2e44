//! `linux.seccomp`: from rules about system calls to a program for the kernel (seccomp(2)).
//!
//! Compiled before the clone, installed by the child. Written here because one program has to serve all three ways
//! into an x86-64 kernel, and the ready-made compiler (seccompiler) ends a process that enters by another than its
//! own. So far: calls that fail with an errno, in a filter that allows the rest.

use nix::errno::Errno;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use crate::error::{Error, Result};

/// A filter, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Program(Vec<libc::sock_filter>);

/// Numbers of a system call: 64-bit (x32 has the same, with a bit set), i386.
struct Numbers {
    name: &'static str,
    x86_64: u32,
    i386: u32,
}

/// `arch/x86/entry/syscalls/syscall_{64,32}.tbl`.
static KNOWN: [Numbers; 3] = [
    Numbers { name: "add_key", x86_64: 248, i386: 286 },
    Numbers { name: "request_key", x86_64: 249, i386: 287 },
    Numbers { name: "keyctl", x86_64: 250, i386: 288 },
];

/// `AUDIT_ARCH_*` of `linux/audit.h`.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT` of `asm/unistd.h`.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` of `linux/seccomp.h`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const RETURN_ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const RETURN_KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

impl Program {
    /// Entries by an architecture that is not listed end the process, as libseccomp has it; the native one always is.
    pub(crate) fn from_oci(seccomp: &LinuxSeccomp) -> Result<Self> {
        let unsupported = |what: &str| Error::unsupported("linux.seccomp", what);
        if seccomp.default_action() != LinuxSeccompAction::ScmpActAllow {
            return Err(unsupported(
                "a default action other than SCMP_ACT_ALLOW is not implemented yet",
            ));
        }
        if seccomp.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            return Err(unsupported("flags are not implemented yet"));
        }
        let mut denials = Vec::new();
        for rule in seccomp.syscalls().iter().flatten() {
            denials.extend(compile_rule(rule)?);
        }
        let listed = seccomp.architectures().as_deref().unwrap_or_default();
        Ok(assemble(
            &denials,
            listed.contains(&Arch::ScmpArchX32),
            listed.contains(&Arch::ScmpArchX86),
        ))
    }

    /// Child: installs the filter. Needs no_new_privs or CAP_SYS_ADMIN.
    pub(crate) fn install(&self) -> Result<(), Errno> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(|_| Errno::E2BIG)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel reads `len` instructions from the pointer, and changes none.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, 0u32, &raw const program) };
        Errno::result(result).map(drop)
    }
}

fn compile_rule(rule: &LinuxSyscall) -> Result<Vec<(&'static Numbers, u32)>> {
    let unsupported = |what: String| Error::unsupported("linux.seccomp.syscalls", what);
    if rule.action() != LinuxSeccompAction::ScmpActErrno {
        return Err(unsupported(format!("{} is not implemented yet", rule.action())));
    }
    if rule.args().as_ref().is_some_and(|args| !args.is_empty()) {
        return Err(unsupported("conditions on arguments are not implemented yet".to_owned()));
    }
    let errno = rule.errno_ret().unwrap_or(libc::EPERM as u32) & libc::SECCOMP_RET_DATA;
    let one = |name: &String| {
        let known = KNOWN.iter().find(|known| known.name == name);
        known
            .map(|numbers| (numbers, libc::SECCOMP_RET_ERRNO | errno))
            .ok_or_else(|| unsupported(format!("{name} is not implemented yet")))
    };
    rule.names().iter().map(one).collect()
}

fn assemble(denials: &[(&Numbers, u32)], x32: bool, i386: bool) -> Program {
    let mut native = vec![load(NUMBER)];
    if x32 {
        native.push(op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !X32_BIT));
    } else {
        native.push(jump(libc::BPF_JSET, X32_BIT, 0, 1));
        native.push(answer(RETURN_KILL));
    }
    native.extend(deny(denials.iter().map(|(numbers, answer)| (numbers.x86_64, *answer))));
    let mut program = section(X86_64, native);
    if i386 {
        let mut compatible = vec![load(NUMBER)];
        compatible.extend(deny(denials.iter().map(|(numbers, answer)| (numbers.i386, *answer))));
        program.extend(section(I386, compatible));
    }
    program.push(answer(RETURN_KILL));
    Program(program)
}

/// What is done for one architecture; another goes on behind it.
fn section(architecture: u32, body: Vec<libc::sock_filter>) -> Vec<libc::sock_filter> {
    let mut section = vec![
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, architecture, 1, 0),
        // Conditional jumps reach 255 instructions, this one all.
        op(libc::BPF_JMP | libc::BPF_JA, body.len() as u32),
    ];
    section.extend(body);
    section
}

fn deny(denials: impl Iterator<Item = (u32, u32)>) -> Vec<libc::sock_filter> {
    let one = |(number, denial)| [jump(libc::BPF_JEQ, number, 0, 1), answer(denial)];
    denials.flat_map(one).chain([answer(RETURN_ALLOW)]).collect()
}

fn op(code: u32, k: u32) -> libc::sock_filter {
    // The codes of classic BPF fit 16 bits; the libc crate has them wider.
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> libc::sock_filter {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(action: u32) -> libc::sock_filter {
    op(libc::BPF_RET | libc::BPF_K, action)
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { jt, jf, ..op(libc::BPF_JMP | condition | libc::BPF_K, k) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a call.
    fn decide(program: &Program, architecture: u32, number: u32) -> u32 {
        let (mut accumulator, mut next) = (0u32, 0usize);
        loop {
            let one = &program.0[next];
            next += 1;
            let condition = match u32::from(one.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = if one.k == NUMBER { number } else { architecture };
                    continue;
                }
                code if code == libc::BPF_ALU | libc::BPF_AND => {
                    accumulator &= one.k;
                    continue;
                }
                code if code == libc::BPF_JMP | libc::BPF_JA => {
                    next += one.k as usize;
                    continue;
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ => accumulator == one.k,
                code if code == libc::BPF_JMP | libc::BPF_JSET => accumulator & one.k != 0,
                code if code == libc::BPF_RET => return one.k,
                other => panic!("instruction {other:#x}"),
            };
            next += usize::from(if condition { one.jt } else { one.jf });
        }
    }

    #[test]
    fn keys_are_out_of_reach_by_every_way_in() {
        let denials: Vec<_> =
            KNOWN.iter().map(|numbers| (numbers, libc::SECCOMP_RET_ERRNO | 1)).collect();
        let program = assemble(&denials, true, true);
        for (architecture, number, denied) in [
            (X86_64, 250, true),
            (X86_64, 248, true),
            (X86_64, X32_BIT | 249, true),
            (I386, 288, true),
            (I386, 286, true),
            (X86_64, 288, false),
            (I386, 250, false),
            (X86_64, 59, false),
            (X86_64, X32_BIT | 520, false),
        ] {
            let expected = if denied { libc::SECCOMP_RET_ERRNO | 1 } else { RETURN_ALLOW };
            assert_eq!(
                decide(&program, architecture, number),
                expected,
                "{architecture:#x} {number}"
            );
        }
        assert_eq!(decide(&program, 0xc000_00b7, 1), RETURN_KILL, "of another machine");
        let native = assemble(&denials, false, false);
        assert_eq!(decide(&native, X86_64, 59), RETURN_ALLOW);
        assert_eq!(decide(&native, X86_64, 250), libc::SECCOMP_RET_ERRNO | 1);
        assert_eq!(decide(&native, X86_64, X32_BIT | 59), RETURN_KILL);
        assert_eq!(decide(&native, I386, 11), RETURN_KILL);
    }

    #[test]
    fn what_is_not_compiled_is_refused() {
        let seccomp =
            |json: serde_json::Value| -> LinuxSeccomp { serde_json::from_value(json).unwrap() };
        for (json, expected) in [
            (serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO"}), "default action"),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]}),
                "mount",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_TRAP"}]}),
                "SCMP_ACT_TRAP",
            ),
        ] {
            let error = Program::from_oci(&seccomp(json)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
