//! The device controller of version 2: an eBPF program, attached to the cgroup, that the kernel asks before a device
//! is made or opened (cgroup-v2.rst, "Device controller").
//!
//! The program is written here, a dozen instructions and a few for each rule, by an assembler just large enough.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::CgroupError;
use super::devices::{ALL_ACCESS, DeviceRules, Rule};

/// `struct bpf_insn` of `linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `BPF_LDX | BPF_MEM | BPF_W`: destination = 32 bits at source + offset.
const LOAD: u8 = 0x61;
/// `BPF_ALU64`, with an immediate or (`_REGISTER`) a source.
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
/// `BPF_JMP`: over `offset` instructions, always or if destination == or != immediate.
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The answer: 0 is EPERM.
const ANSWER: u8 = 0;
/// `struct bpf_cgroup_dev_ctx`, at entry.
const CONTEXT: u8 = 1;
/// Accesses that are asked for and that no rule has decided yet.
const UNDECIDED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

fn op(code: u8, destination: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset: 0, immediate }
}

fn copy(destination: u8, source: u8) -> Instruction {
    Instruction { registers: destination | source << 4, ..op(MOVE_REGISTER, 0, 0) }
}

fn load(destination: u8, offset: i16) -> Instruction {
    Instruction { registers: destination | CONTEXT << 4, offset, ..op(LOAD, 0, 0) }
}

fn answer(allow: bool) -> [Instruction; 2] {
    [op(MOVE, ANSWER, i32::from(allow)), op(EXIT, 0, 0)]
}

/// The last rule that matches decides, so the program goes through them from the last to the first, until all of the
/// accesses are decided. Neighbours of one kind or major number share the question for it: the kernel's verifier
/// walks every way through a program at each start of a container, and took 3 ms where each rule asked for itself.
fn assemble(rules: &DeviceRules) -> Result<Vec<Instruction>, Errno> {
    let mut program = Assembler::default();
    program.code.extend([
        // access_type: the kind in the low 16 bits, the access in the high.
        load(UNDECIDED, 0),
        copy(KIND, UNDECIDED),
        op(AND, KIND, 0xffff),
        op(SHIFT_RIGHT, UNDECIDED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ]);
    let mut deciding: Vec<&Rule> = Vec::new();
    for rule in rules.exceptions.iter().rev() {
        if !deciding.iter().any(|later| later.covers(rule)) {
            deciding.push(rule);
        }
    }
    for alike in deciding.chunk_by(|a, b| (a.kind, a.major) == (b.kind, b.major)) {
        program.only_if(KIND, Some(alike[0].kind as u32), |program| {
            program.only_if(MAJOR, alike[0].major, |program| {
                alike.iter().try_for_each(|rule| program.decide(rule))
            })
        })?;
    }
    program.finish(rules.allow_by_default)
}

/// A program, and the jumps in it whose way is not known yet.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    /// (place, answer to be given from there)
    answers: Vec<(usize, bool)>,
}

impl Assembler {
    /// Skips `body` where the register has another number.
    fn only_if(
        &mut self,
        register: u8,
        number: Option<u32>,
        body: impl FnOnce(&mut Self) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let Some(number) = number else { return body(self) };
        let skip = self.code.len();
        // Checked to be positive where the rules are read.
        self.code.push(op(JUMP_NOT_EQUAL, register, number as i32));
        body(self)?;
        self.code[skip].offset = distance(skip, self.code.len())?;
        Ok(())
    }

    fn decide(&mut self, rule: &Rule) -> Result<(), Errno> {
        let access = i32::from(rule.access);
        if rule.allow && rule.access == ALL_ACCESS {
            let asked = rule.minor.map(|number| op(JUMP_EQUAL, MINOR, number as i32));
            self.answer_after(asked.unwrap_or(op(JUMP, 0, 0)), true);
            return Ok(());
        }
        self.only_if(MINOR, rule.minor, |program| {
            if rule.allow {
                program.code.push(op(AND, UNDECIDED, !access));
                program.answer_after(op(JUMP_EQUAL, UNDECIDED, 0), true);
            } else {
                program.code.extend([copy(SCRATCH, UNDECIDED), op(AND, SCRATCH, access)]);
                program.answer_after(op(JUMP_NOT_EQUAL, SCRATCH, 0), false);
            }
            Ok(())
        })
    }

    fn answer_after(&mut self, jump: Instruction, allow: bool) {
        self.answers.push((self.code.len(), allow));
        self.code.push(jump);
    }

    /// Ends the program with the answers: first the one that is given where no rule decided.
    fn finish(mut self, default: bool) -> Result<Vec<Instruction>, Errno> {
        // The verifier refuses instructions that nothing leads to.
        for answer_of in [default, !default] {
            let end = self.code.len();
            let mut from_here =
                self.answers.iter().filter(|(_, allow)| *allow == answer_of).peekable();
            if answer_of == default || from_here.peek().is_some() {
                self.code.extend(answer(answer_of));
            }
            for (from, _) in from_here {
                self.code[*from].offset = distance(*from, end)?;
            }
        }
        Ok(self.code)
    }
}

/// For more rules than a jump reaches over there is no program.
fn distance(from: usize, to: usize) -> Result<i16, Errno> {
    i16::try_from(to - from - 1).map_err(|_| Errno::E2BIG)
}

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of cgroups above and below ours are asked as well, and all must agree.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes what it is not given as zero.
#[derive(Default)]
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Attaches the rules to a version 2 cgroup. They go with it.
pub(super) fn attach(cgroup: &Path, rules: &DeviceRules) -> Result<(), CgroupError> {
    let directory =
        File::open(cgroup).map_err(|source| CgroupError::io("open cgroup", cgroup, source))?;
    let failed = |errno: Errno| CgroupError::DeviceProgram {
        path: cgroup.to_path_buf(),
        source: errno.into(),
    };
    let program = assemble(rules).and_then(|code| load_program(&code)).map_err(failed)?;
    let attributes = AttachAttributes {
        target: directory.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the attributes, which hold two live descriptors and no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &attributes) }.map_err(failed).map(drop)
}

fn load_program(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        // Rules come from a configuration; the kernel refuses more than a million instructions.
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the pointers name `instruction_count` instructions and a C string; both outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: a new descriptor, close-on-exec as all of bpf(2)'s, that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// The attributes must be those of the command, and what they point to must be live.
unsafe fn bpf<T>(command: u32, attributes: &T) -> Result<i64, Errno> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of the attributes; for the rest the caller vouches.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    })
}

#[cfg(test)]
mod tests {
    use super::super::devices::{Kind, MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would; panics where its verifier would refuse.
    fn interpret(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [None; 11];
        let mut next = 0;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[next];
            let (destination, source) = (usize::from(both & 15), usize::from(both >> 4));
            let value = |register: usize| registers[register].expect("it was written before");
            next += 1;
            let result: u64 = match code {
                LOAD => {
                    assert_eq!((source, offset % 4), (usize::from(CONTEXT), 0));
                    context[offset as usize / 4].into()
                }
                MOVE => immediate as i64 as u64,
                MOVE_REGISTER => value(source),
                AND => value(destination) & immediate as i64 as u64,
                SHIFT_RIGHT => value(destination) >> immediate,
                JUMP | JUMP_EQUAL | JUMP_NOT_EQUAL => {
                    assert!(offset >= 0, "only forward: the program ends");
                    if code == JUMP {
                        next += offset as usize;
                        continue;
                    }
                    let equal = value(destination) == immediate as i64 as u64;
                    if equal == (code == JUMP_EQUAL) {
                        next += offset as usize;
                    }
                    continue;
                }
                EXIT => return value(usize::from(ANSWER)),
                other => panic!("instruction {other:#x}"),
            };
            registers[destination] = Some(result);
        }
    }

    fn is_allowed(rules: &DeviceRules, kind: Kind, number: [u32; 2], access: u8) -> bool {
        let access_type = u32::from(access) << 16 | kind as u32;
        interpret(&assemble(rules).unwrap(), [access_type, number[0], number[1]]) == 1
    }

    #[test]
    fn a_container_opens_its_own_devices_and_no_disk() {
        let rules = DeviceRules::new(std::iter::empty(), &[]).unwrap();
        for (kind, number, access, expected) in [
            (Kind::Character, [1, 3], READ | WRITE, true),
            (Kind::Character, [136, 77], READ | WRITE, true),
            (Kind::Character, [1, 1], READ, false),
            (Kind::Character, [1, 1], MKNOD, true),
            (Kind::Character, [1, 1], MKNOD | READ, false),
            (Kind::Block, [1, 3], READ, false),
            (Kind::Block, [7, 0], READ, false),
            (Kind::Block, [7, 0], WRITE, false),
            (Kind::Block, [7, 0], MKNOD, true),
            (Kind::Character, [5, 1], WRITE, false),
        ] {
            assert_eq!(
                is_allowed(&rules, kind, number, access),
                expected,
                "{kind:?} {number:?} {access}"
            );
        }
    }

    #[test]
    fn the_last_rule_decides_for_each_access() {
        let rule =
            |allow, minor, access| Rule { allow, kind: Kind::Block, major: Some(8), minor, access };
        let rules = DeviceRules {
            allow_by_default: false,
            exceptions: vec![
                rule(true, None, READ),
                rule(true, Some(1), WRITE),
                rule(false, Some(2), READ | MKNOD),
            ],
        };
        let is = |number, access| is_allowed(&rules, Kind::Block, [8, number], access);
        assert!(is(0, READ) && !is(0, WRITE) && !is(0, READ | WRITE));
        assert!(is(1, READ) && is(1, WRITE) && is(1, READ | WRITE), "two rules together");
        assert!(!is(2, READ) && !is(2, WRITE));
        let open =
            DeviceRules { allow_by_default: true, exceptions: vec![rule(false, Some(0), WRITE)] };
        let is = |number, access| is_allowed(&open, Kind::Block, [8, number], access);
        assert!(is(0, READ) && !is(0, WRITE) && !is(0, READ | WRITE) && is(1, READ | WRITE));
    }

    /// Every rule asked by itself, without an order of the questions to get wrong.
    fn decide(rules: &DeviceRules, device: (Kind, [u32; 2]), access: u8) -> bool {
        let decided_by = |bit: u8| {
            let matches = |rule: &&Rule| {
                let is = |number: Option<u32>, of: u32| number.is_none_or(|number| number == of);
                rule.kind == device.0
                    && is(rule.major, device.1[0])
                    && is(rule.minor, device.1[1])
                    && rule.access & bit != 0
            };
            let rule = rules.exceptions.iter().rev().find(matches);
            rule.map_or(rules.allow_by_default, |rule| rule.allow)
        };
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(decided_by)
    }

    #[test]
    fn programs_decide_as_the_rules_say_whatever_they_share() {
        // Four rules of few numbers, so that neighbours share and hide each other in every way.
        let mut random = 1u64;
        let mut choose = |of: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % of
        };
        for _ in 0..2000 {
            let exceptions = (0..4).map(|_| Rule {
                allow: choose(2) == 0,
                kind: if choose(3) == 0 { Kind::Block } else { Kind::Character },
                major: [None, Some(1), Some(2)][choose(3) as usize],
                minor: [None, Some(1), Some(2)][choose(3) as usize],
                access: [ALL_ACCESS, READ, WRITE | MKNOD, READ | WRITE][choose(4) as usize],
            });
            let exceptions = exceptions.collect();
            let rules = DeviceRules { allow_by_default: choose(2) == 0, exceptions };
            for case in 0..2 * 3 * 3 * 7 {
                let kind = if case % 2 == 0 { Kind::Block } else { Kind::Character };
                let number = [case / 2 % 3, case / 6 % 3];
                let access = 1 + (case / 18) as u8;
                assert_eq!(
                    is_allowed(&rules, kind, number, access),
                    decide(&rules, (kind, number), access),
                    "{kind:?} {number:?} {access}: {rules:?}"
                );
            }
        }
    }

    #[test]
    fn the_usual_program_is_short() {
        let usual = assemble(&DeviceRules::new(std::iter::empty(), &[]).unwrap()).unwrap();
        let null = [(nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::makedev(1, 3))];
        let with_nodes = DeviceRules::new(null.into_iter(), &[]).unwrap();
        assert_eq!(assemble(&with_nodes).unwrap(), usual, "what all may use is not asked twice");
        assert!(usual.len() < 40, "{}", usual.len());
    }

    /// Needs CAP_BPF and CAP_NET_ADMIN, as the tests in `container/tests` do.
    #[test]
    fn the_kernel_s_verifier_takes_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let deny = Rule {
            allow: false,
            kind: Kind::Block,
            major: Some(8),
            minor: Some(1),
            access: READ | WRITE,
        };
        let mut rules = DeviceRules::new(std::iter::empty(), &[]).unwrap();
        rules.exceptions.push(deny);
        load_program(&assemble(&rules).unwrap()).unwrap();
        rules = DeviceRules { allow_by_default: true, exceptions: Vec::new() };
        load_program(&assemble(&rules).unwrap()).unwrap();
    }
}
