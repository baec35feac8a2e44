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
    let mut native = Vec::new();
    leaves(&rules.x86_64, 0, rules.default, &mut native);
    match &rules.x32 {
        Some(calls) => leaves(calls, X32_BIT, rules.default, &mut native),
        None => native.push((X32_BIT, Leaf::Answer(FOREIGN))),
    }
    native.push((SKIPPED, Leaf::Answer(rules.default)));
    let mut writer = Writer::default();
    let mut others = Target::Answer(FOREIGN);
    if let Some(calls) = &rules.i386 {
        let mut compatible = Vec::new();
        leaves(calls, 0, rules.default, &mut compatible);
        others = writer.section(I386, &compatible, rules.default, others);
    }
    writer.section(X86_64, &native, rules.default, others);
    writer.finish()
}

/// Where a row of numbers begins that are answered alike, and how; the default behind the last.
fn leaves<'a>(calls: &'a Calls, bit: u32, default: u32, into: &mut Vec<(u32, Leaf<'a>)>) {
    let leaf = |decision: &'a Decision| match decision.conditional.is_empty() {
        true => Leaf::Answer(decision.otherwise.unwrap_or(default)),
        false => Leaf::Decide(decision),
    };
    let all = calls.all().iter().map(leaf).chain([Leaf::Answer(default)]);
    for (number, leaf) in (bit..).zip(all) {
        let is_as_before = into.last().is_some_and(|(_, last)| *last == leaf);
        if !is_as_before || matches!(leaf, Leaf::Decide(_)) {
            into.push((number, leaf));
        }
    }
}

/// A program that is written from its end, for jumps only lead forward: what they lead to is there already.
#[derive(Default)]
struct Writer {
    backwards: Instructions,
    /// Answers, and where each was written last: one serves all jumps that reach it.
    answers: Vec<(u32, usize)>,
}

/// Where a jump leads.
#[derive(Clone, Copy)]
enum Target {
    /// To an instruction, counted from the program's end.
    At(usize),
    Answer(u32),
}

/// A conditional jump leads over 255 instructions at most, of which the way to its other target may take two.
const REACH: usize = 253;

impl Writer {
    fn push(&mut self, instruction: libc::sock_filter) -> Target {
        self.backwards.push(instruction);
        Target::At(self.backwards.len())
    }

    /// How many instructions are between one that is written now and `place`.
    fn distance(&self, place: usize) -> usize {
        self.backwards.len() - place
    }

    /// A place in reach from which it goes on to `target`.
    fn reach(&mut self, target: Target) -> usize {
        let answer = match target {
            Target::At(place) if self.distance(place) <= REACH => return place,
            // An unconditional jump reaches everything.
            Target::At(place) => {
                self.push(op(libc::BPF_JMP | libc::BPF_JA, self.distance(place) as u32));
                return self.backwards.len();
            }
            Target::Answer(answer) => answer,
        };
        let known = self.answers.iter().position(|(other, _)| *other == answer);
        match known.map(|known| self.answers[known].1) {
            Some(place) if self.distance(place) <= REACH => return place,
            _ => {}
        }
        self.push(op(libc::BPF_RET | libc::BPF_K, answer));
        let place = self.backwards.len();
        match known {
            Some(known) => self.answers[known].1 = place,
            None => self.answers.push((answer, place)),
        }
        place
    }

    /// Goes to one target if the condition holds of what was loaded, and to the other if not.
    fn branch(&mut self, condition: u32, k: u32, yes: Target, no: Target) -> Target {
        let yes = self.reach(yes);
        let no = self.reach(no);
        // Not cut: both are in reach.
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        let jump = op(libc::BPF_JMP | condition | libc::BPF_K, k);
        self.push(libc::sock_filter { jt, jf, ..jump })
    }

    /// An instruction behind which it goes on to `target`.
    fn before(&mut self, target: Target, instruction: libc::sock_filter) -> Target {
        let place = self.reach(target);
        let distance = self.distance(place);
        if distance > 0 {
            self.push(op(libc::BPF_JMP | libc::BPF_JA, distance as u32));
        }
        self.push(instruction)
    }

    fn load(&mut self, offset: u32, target: Target) -> Target {
        self.before(target, op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset))
    }

    /// What is done for one architecture; others go on at `others`.
    fn section(
        &mut self,
        architecture: u32,
        leaves: &[(u32, Leaf)],
        default: u32,
        others: Target,
    ) -> Target {
        let tree = self.tree(leaves, default);
        let number = self.load(NUMBER, tree);
        let judged = self.branch(libc::BPF_JEQ, architecture, number, others);
        self.load(ARCHITECTURE, judged)
    }

    fn tree(&mut self, leaves: &[(u32, Leaf)], default: u32) -> Target {
        let middle = leaves.len() / 2;
        match leaves {
            [] => Target::Answer(default),
            [(_, Leaf::Answer(value))] => Target::Answer(*value),
            [(_, Leaf::Decide(decision))] => self.decide(decision, default),
            _ => {
                let upper = self.tree(&leaves[middle..], default);
                let lower = self.tree(&leaves[..middle], default);
                self.branch(libc::BPF_JGE, leaves[middle].0, upper, lower)
            }
        }
    }

    fn decide(&mut self, decision: &Decision, default: u32) -> Target {
        let otherwise = Target::Answer(decision.otherwise.unwrap_or(default));
        let rules = decision.conditional.iter().rev();
        rules.fold(otherwise, |otherwise, rule| self.rule(rule, otherwise))
    }

    /// Answers if all conditions hold.
    fn rule(&mut self, rule: &Rule, otherwise: Target) -> Target {
        let answer = Target::Answer(rule.answer);
        let conditions = rule.conditions.iter().rev();
        conditions.fold(answer, |holds, condition| self.test(condition, holds, otherwise))
    }

    /// Goes where the condition leads. An argument is two words (little-endian); of i386's the upper one is zero.
    fn test(&mut self, condition: &Condition, yes: Target, no: Target) -> Target {
        match condition.operator {
            Operator::ScmpCmpEq => self.equal(condition, None, (yes, no)),
            Operator::ScmpCmpNe => self.equal(condition, None, (no, yes)),
            Operator::ScmpCmpMaskedEq => self.equal(condition, Some(condition.mask), (yes, no)),
            Operator::ScmpCmpGt => self.compare(condition, libc::BPF_JGT, (yes, no)),
            Operator::ScmpCmpGe => self.compare(condition, libc::BPF_JGE, (yes, no)),
            Operator::ScmpCmpLt => self.compare(condition, libc::BPF_JGE, (no, yes)),
            Operator::ScmpCmpLe => self.compare(condition, libc::BPF_JGT, (no, yes)),
        }
    }

    fn equal(
        &mut self,
        condition: &Condition,
        mask: Option<u64>,
        (same, other): (Target, Target),
    ) -> Target {
        let offset = ARGUMENTS + 8 * condition.argument;
        let mut word = |value: u64, shift: u32, offset, same| {
            let mut next = self.branch(libc::BPF_JEQ, (value >> shift) as u32, same, other);
            if let Some(mask) = mask {
                let and = op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, (mask >> shift) as u32);
                next = self.before(next, and);
            }
            self.load(offset, next)
        };
        let low = word(condition.value, 0, offset, same);
        word(condition.value, 32, offset + 4, low)
    }

    /// By the high word, unless it is equal: then by the low one, which `low` compares.
    fn compare(
        &mut self,
        condition: &Condition,
        low: u32,
        (above, below): (Target, Target),
    ) -> Target {
        let (offset, value) = (ARGUMENTS + 8 * condition.argument, condition.value);
        let same = self.branch(low, value as u32, above, below);
        let same = self.load(offset, same);
        let at_most = self.branch(libc::BPF_JEQ, (value >> 32) as u32, same, below);
        let high = self.branch(libc::BPF_JGT, (value >> 32) as u32, above, at_most);
        self.load(offset + 4, high)
    }

    fn finish(mut self) -> Instructions {
        self.backwards.reverse();
        self.backwards
    }
}

fn op(code: u32, k: u32) -> libc::sock_filter {
    // The codes of classic BPF fit 16 bits; the libc crate has them wider.
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
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

    #[test]
    fn where_rules_meet_the_answers_are_libseccomp_s() {
        // As `seccomp_rule_add` and `seccomp_export_pfc` of libseccomp 2.5.4 have it, of a default of EPERM.
        let when = json!([{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]);
        let allow = |args: serde_json::Value| json!({"names": ["times"], "action": "SCMP_ACT_ALLOW", "args": args});
        let deny = |errno: u32, args: serde_json::Value| json!({"names": ["times"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args});
        let errno = |number: u32| libc::SECCOMP_RET_ERRNO | number;
        let none = json!([]);
        for (rules, seven, eight) in [
            (vec![allow(when.clone()), deny(38, none.clone())], errno(38), errno(38)),
            (vec![deny(38, none.clone()), allow(when.clone())], errno(38), errno(38)),
            (vec![deny(38, none.clone()), allow(none.clone())], errno(38), errno(38)),
            (vec![allow(when.clone()), deny(38, when.clone())], ALLOW, errno(1)),
            // What is the default anyhow is no rule.
            (vec![allow(when.clone()), deny(1, none.clone())], ALLOW, errno(1)),
            (vec![deny(1, when.clone()), allow(none.clone())], ALLOW, ALLOW),
        ] {
            let (_, program) =
                compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
            let times = libc::SYS_times as u32;
            let of = |value: u64| run(&program, X86_64, times, [value, 0, 0, 0, 0, 0]);
            assert_eq!((of(7), of(8)), (seven, eight), "{rules:?}");
        }
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
        let Some(decision) = calls.all().get(number as usize) else { return rules.default };
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
