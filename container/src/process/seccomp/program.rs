//! From rules to instructions (`Documentation/userspace-api/seccomp_filter.rst`): a search tree over the calls'
//! numbers, with one leaf for all numbers in a row that are answered alike. A profile of 400 names is some 60 leaves,
//! which six comparisons tell apart; and as nearly all of them look at no argument, the kernel runs the program once for
//! each call and remembers the answer.

use oci_spec::runtime::LinuxSeccompOperator as Operator;

use super::rules::{Calls, Condition, Decision, Rule, Rules};

/// `AUDIT_ARCH_*` of `linux/audit.h`.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT` of `asm/unistd.h`.
const X32_BIT: u32 = 0x4000_0000;
/// What a tracer leaves there to skip a call: no call of x32.
const SKIPPED: u32 = u32::MAX;

/// Offsets in `struct seccomp_data` of `linux/seccomp.h`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// To who enters by an architecture that is not listed.
const FOREIGN: u32 = libc::SECCOMP_RET_KILL_PROCESS;

type Instructions = Vec<libc::sock_filter>;

/// What is done with a row of numbers.
#[derive(Clone, Copy, PartialEq)]
enum Leaf<'a> {
    Answer(u32),
    Decide(&'a Decision),
}

pub(super) fn assemble(rules: &Rules) -> Instructions {
    let default = Leaf::Answer(rules.default);
    let mut native = vec![(0, default)];
    native.extend(leaves(&rules.x86_64, 0, rules.default));
    match &rules.x32 {
        Some(calls) => {
            native.push((X32_BIT, default));
            native.extend(leaves(calls, X32_BIT, rules.default));
        }
        None => native.push((X32_BIT, Leaf::Answer(FOREIGN))),
    }
    native.push((SKIPPED, default));
    let mut program = section(X86_64, native, rules.default);
    if let Some(calls) = &rules.i386 {
        let mut compatible = vec![(0, default)];
        compatible.extend(leaves(calls, 0, rules.default));
        program.extend(section(I386, compatible, rules.default));
    }
    program.push(answer(FOREIGN));
    program
}

/// Where a leaf begins: at each call's number, and the default again behind it.
fn leaves(calls: &Calls, bit: u32, default: u32) -> impl Iterator<Item = (u32, Leaf<'_>)> {
    calls.iter().flat_map(move |(number, decision)| {
        let leaf = match decision.conditional.is_empty() {
            true => Leaf::Answer(decision.otherwise.unwrap_or(default)),
            false => Leaf::Decide(decision),
        };
        [(bit | number, leaf), (bit | (number + 1), Leaf::Answer(default))]
    })
}

/// What is done for one architecture; another goes on behind it.
fn section(architecture: u32, mut leaves: Vec<(u32, Leaf)>, default: u32) -> Instructions {
    // Of two that begin at one number the later counts, and one that is as the one before it is none.
    leaves.reverse();
    leaves.dedup_by_key(|(start, _)| *start);
    leaves.reverse();
    leaves.dedup_by(|next, last| matches!(next.1, Leaf::Answer(_)) && next.1 == last.1);
    let mut section = vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, architecture, 1, 0)];
    let tree = tree(&leaves, default);
    // Conditional jumps reach 255 instructions, this one all.
    section.push(op(libc::BPF_JMP | libc::BPF_JA, tree.len() as u32 + 1));
    section.push(load(NUMBER));
    section.extend(tree);
    section
}

fn tree(leaves: &[(u32, Leaf)], default: u32) -> Instructions {
    let middle = leaves.len() / 2;
    match leaves {
        [] => vec![answer(default)],
        [(_, Leaf::Answer(value))] => vec![answer(*value)],
        [(_, Leaf::Decide(decision))] => decide(decision, default),
        _ => {
            let (lower, upper) =
                (tree(&leaves[..middle], default), tree(&leaves[middle..], default));
            let first = leaves[middle].0;
            let mut all = match u8::try_from(lower.len()) {
                Ok(length) => vec![jump(libc::BPF_JGE, first, length, 0)],
                Err(_) => vec![
                    jump(libc::BPF_JGE, first, 0, 1),
                    op(libc::BPF_JMP | libc::BPF_JA, lower.len() as u32),
                ],
            };
            all.extend(lower);
            all.extend(upper);
            all
        }
    }
}

fn decide(decision: &Decision, default: u32) -> Instructions {
    let mut all: Instructions = decision.conditional.iter().flat_map(rule).collect();
    all.push(answer(decision.otherwise.unwrap_or(default)));
    all
}

/// Answers if all conditions hold, and goes on behind itself otherwise. From the end: a condition that fails jumps over
/// what is there already, which is at most the six conditions of six arguments.
fn rule(rule: &Rule) -> Instructions {
    let mut rest = vec![answer(rule.answer)];
    for condition in rule.conditions.iter().rev() {
        let mut all = test(condition, rest.len() as u8);
        all.extend(rest);
        rest = all;
    }
    rest
}

/// Goes on behind itself if the condition holds, otherwise `fail` instructions further. An argument is two words
/// (little-endian); of i386's the upper one is zero.
fn test(condition: &Condition, fail: u8) -> Instructions {
    let Condition { argument, operator, value, mask } = *condition;
    let low = load(ARGUMENTS + 8 * argument);
    let high = load(ARGUMENTS + 8 * argument + 4);
    let (low_value, high_value) = (value as u32, (value >> 32) as u32);
    // The high word decides unless it is equal. `holds`: what it means that the argument is above.
    let compare = |condition, holds: bool| {
        let (above, below) = if holds { (3, fail + 2) } else { (fail + 3, 2) };
        let (yes, no) = if holds { (0, fail) } else { (fail, 0) };
        vec![
            high,
            jump(libc::BPF_JGT, high_value, above, 0),
            jump(libc::BPF_JEQ, high_value, 0, below),
            low,
            jump(condition, low_value, yes, no),
        ]
    };
    match operator {
        Operator::ScmpCmpEq => vec![
            high,
            jump(libc::BPF_JEQ, high_value, 0, fail + 2),
            low,
            jump(libc::BPF_JEQ, low_value, 0, fail),
        ],
        Operator::ScmpCmpNe => vec![
            high,
            jump(libc::BPF_JEQ, high_value, 0, 2),
            low,
            jump(libc::BPF_JEQ, low_value, fail, 0),
        ],
        Operator::ScmpCmpMaskedEq => vec![
            high,
            op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, (mask >> 32) as u32),
            jump(libc::BPF_JEQ, high_value, 0, fail + 3),
            low,
            op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask as u32),
            jump(libc::BPF_JEQ, low_value, 0, fail),
        ],
        Operator::ScmpCmpGt => compare(libc::BPF_JGT, true),
        Operator::ScmpCmpGe => compare(libc::BPF_JGE, true),
        Operator::ScmpCmpLt => compare(libc::BPF_JGE, false),
        Operator::ScmpCmpLe => compare(libc::BPF_JGT, false),
    }
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
    use oci_spec::runtime::LinuxSeccomp;
    use serde_json::json;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn run(program: &[libc::sock_filter], architecture: u32, number: u32, args: [u64; 6]) -> u32 {
        walk(program, architecture, number, args).0
    }

    /// What the kernel does with a call, and how many instructions that takes.
    fn walk(
        program: &[libc::sock_filter],
        architecture: u32,
        number: u32,
        args: [u64; 6],
    ) -> (u32, usize) {
        let (mut accumulator, mut next, mut steps) = (0u32, 0usize, 0);
        loop {
            let one = &program[next];
            next += 1;
            steps += 1;
            let condition = match u32::from(one.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match one.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        k => {
                            let word = (k - ARGUMENTS) / 4;
                            (args[word as usize / 2] >> (word % 2 * 32)) as u32
                        }
                    };
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
                code if code == libc::BPF_JMP | libc::BPF_JGE => accumulator >= one.k,
                code if code == libc::BPF_JMP | libc::BPF_JGT => accumulator > one.k,
                code if code == libc::BPF_RET => return (one.k, steps),
                other => panic!("instruction {other:#x}"),
            };
            next += usize::from(if condition { one.jt } else { one.jf });
        }
    }

    fn compile(json: serde_json::Value) -> (Rules, Instructions) {
        let seccomp: LinuxSeccomp = serde_json::from_value(json).unwrap();
        let rules = Rules::from_oci(&seccomp).unwrap();
        let program = assemble(&rules);
        (rules, program)
    }

    /// The same by the words of the specification.
    fn expected(rules: &Rules, architecture: u32, number: u32, args: [u64; 6]) -> u32 {
        let calls = match architecture {
            X86_64 if number == SKIPPED => return rules.default,
            X86_64 if number >= X32_BIT => rules.x32.as_ref(),
            X86_64 => Some(&rules.x86_64),
            I386 => rules.i386.as_ref(),
            _ => None,
        };
        let Some(calls) = calls else { return FOREIGN };
        let number = if architecture == X86_64 { number & !X32_BIT } else { number };
        let Some(decision) = calls.get(&number) else { return rules.default };
        let holds = |condition: &Condition| {
            let argument = args[condition.argument as usize];
            match condition.operator {
                Operator::ScmpCmpEq => argument == condition.value,
                Operator::ScmpCmpNe => argument != condition.value,
                Operator::ScmpCmpLt => argument < condition.value,
                Operator::ScmpCmpLe => argument <= condition.value,
                Operator::ScmpCmpGt => argument > condition.value,
                Operator::ScmpCmpGe => argument >= condition.value,
                Operator::ScmpCmpMaskedEq => argument & condition.mask == condition.value,
            }
        };
        let first = decision.conditional.iter().find(|rule| rule.conditions.iter().all(holds));
        first.map(|rule| rule.answer).or(decision.otherwise).unwrap_or(rules.default)
    }

    fn check(rules: &Rules, program: &[libc::sock_filter], values: &[u64]) {
        let x32 = (0..600).map(|number| X32_BIT | number);
        let numbers: Vec<u32> = (0..600).chain(x32).chain([SKIPPED, SKIPPED - 1]).collect();
        for architecture in [X86_64, I386, 0xc000_00b7] {
            for &number in &numbers {
                for &value in values {
                    for args in
                        [[value; 6], [value, 0, 9, 0, 1, 0], [16, value, value, 1, 0, value]]
                    {
                        assert_eq!(
                            run(program, architecture, number, args),
                            expected(rules, architecture, number, args),
                            "{architecture:#x} {number:#x} {args:x?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_operator_compares_all_64_bits() {
        let big = 0x1_0000_0005u64;
        for operator in ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"] {
            let (rules, program) = compile(json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [{
                    "names": ["lseek", "_llseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7,
                    "args": [
                        {"index": 1, "value": big, "valueTwo": 5, "op": format!("SCMP_CMP_{operator}")},
                        {"index": 4, "value": 1, "op": "SCMP_CMP_LE"},
                    ],
                }],
            }));
            let values =
                [0, 5, 6, 4, big, big - 1, big + 1, 1 << 32, 2 << 32, u64::MAX, 0x3_0000_0005];
            check(&rules, &program, &values);
            let seen = values.map(|value| run(&program, X86_64, 8, [0, value, 0, 0, 1, 0]));
            assert!(seen.contains(&ALLOW) && seen.contains(&(libc::SECCOMP_RET_ERRNO | 7)));
        }
    }

    #[test]
    fn every_action_is_the_kernel_s() {
        for (action, value) in [
            ("KILL", 0),
            ("KILL_THREAD", 0),
            ("KILL_PROCESS", 0x8000_0000),
            ("TRAP", 0x0003_0000),
            ("ERRNO", 0x0005_0001),
            ("TRACE", 0x7ff0_0001),
            ("NOTIFY", 0x7fc0_0000),
            ("LOG", 0x7ffc_0000),
            ("ALLOW", 0x7fff_0000),
        ] {
            let (_, program) = compile(json!({
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                "syscalls": [{"names": ["getpid", "not_of_this_kernel"], "action": format!("SCMP_ACT_{action}")}],
            }));
            assert_eq!(run(&program, X86_64, 39, [0; 6]), value, "{action}");
            assert_eq!(run(&program, X86_64, 40, [0; 6]), libc::SECCOMP_RET_ERRNO | 38);
            // Neither is listed.
            assert_eq!(run(&program, X86_64, X32_BIT | 39, [0; 6]), FOREIGN);
            assert_eq!(run(&program, I386, 20, [0; 6]), FOREIGN);
        }
    }

    #[test]
    fn sockets_of_i386_are_kept_by_both_ways() {
        let (rules, program) = compile(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": ["accept", "shmat"], "action": "SCMP_ACT_ERRNO"}],
        }));
        let denied = libc::SECCOMP_RET_ERRNO | 1;
        for (number, first, answer) in [
            (102, 5, denied),
            (102, 4, ALLOW),
            (117, 21, denied),
            (117, 1, ALLOW),
            (397, 0, denied),
        ] {
            assert_eq!(
                run(&program, I386, number, [first, 0, 0, 0, 0, 0]),
                answer,
                "{number} {first}"
            );
        }
        check(&rules, &program, &[5, 21]);
    }

    /// As podman gives it to a runtime; here by the profile's own list, without its conditions on capabilities.
    #[test]
    fn a_profile_of_400_names_is_a_shallow_tree() {
        let Ok(text) = std::fs::read("/usr/share/containers/seccomp.json") else { return };
        let mut profile: serde_json::Value = serde_json::from_slice(&text).unwrap();
        profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        let (rules, program) = compile(profile);
        check(&rules, &program, &[0, 8, 9, 16, 0x20000, 0xffff_ffff]);
        assert!(program.len() < 1000, "{} instructions", program.len());
        let longest =
            (0..470).map(|number| walk(&program, X86_64, number, [0; 6]).1).max().unwrap();
        assert!(longest < 40, "{longest} instructions for one call");
    }
}
