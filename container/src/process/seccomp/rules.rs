//! What each system call is answered, by architecture.

use std::collections::HashMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::names::{Numbers, find, multiplexed};
use crate::error::{Error, Result};

const FIELD: &str = "linux.seccomp.syscalls";

/// `MAX_ERRNO` of the kernel: what is larger is no error to a program.
const MAX_ERRNO: u32 = 4095;

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub argument: u32,
    pub operator: LinuxSeccompOperator,
    /// What it is compared with.
    pub value: u64,
    /// Of SCMP_CMP_MASKED_EQ; all bits otherwise.
    pub mask: u64,
}

/// What is answered if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub conditions: Vec<Condition>,
    pub answer: u32,
}

/// What one call is answered. Where several rules are about it, it is as libseccomp has it: the first without conditions
/// is all, wherever it stands; otherwise the first whose conditions hold, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub conditional: Vec<Rule>,
    /// Otherwise, if anything else than the default.
    pub otherwise: Option<u32>,
}

/// The calls of one architecture: the place is the number.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Decision>);

/// No architecture has so many calls; it saves growing.
const USUAL: usize = 600;

/// A whole filter.
#[derive(Debug)]
pub(super) struct Rules {
    /// What a call without a rule is answered.
    pub default: u32,
    pub x86_64: Calls,
    /// Numbers without the bit that tells them from those of x86-64. None: not to be entered by.
    pub x32: Option<Calls>,
    pub i386: Option<Calls>,
}

impl Rules {
    pub(super) fn from_oci(seccomp: &LinuxSeccomp) -> Result<Self> {
        let default = seccomp.default_action();
        if default == LinuxSeccompAction::ScmpActNotify {
            let problem =
                "SCMP_ACT_NOTIFY cannot be the answer to every call: nobody could be told";
            return Err(Error::invalid("linux.seccomp.defaultAction", problem));
        }
        let field = "linux.seccomp.defaultErrnoRet";
        let default = answer(default, seccomp.default_errno_ret(), field)?;
        let mut rules = Rules { default, x86_64: Calls::default(), x32: None, i386: None };
        for architecture in seccomp.architectures().iter().flatten() {
            match architecture {
                Arch::ScmpArchNative | Arch::ScmpArchX86_64 => {}
                Arch::ScmpArchX32 => rules.x32 = Some(Calls::default()),
                Arch::ScmpArchX86 => rules.i386 = Some(Calls::default()),
                other => {
                    let problem = format!("{other:?} is not an architecture of an x86-64 kernel");
                    return Err(Error::unsupported("linux.seccomp.architectures", problem));
                }
            }
        }
        for rule in seccomp.syscalls().iter().flatten() {
            rules.add(rule)?;
        }
        Ok(rules)
    }

    fn add(&mut self, rule: &LinuxSyscall) -> Result<()> {
        if rule.names().is_empty() {
            return Err(Error::invalid(FIELD, "a rule without names"));
        }
        let answer = answer(rule.action(), rule.errno_ret(), FIELD)?;
        let alternatives = alternatives(rule.args().as_deref().unwrap_or_default())?;
        // As runc, whose library refuses such a rule: it says nothing, and takes nothing from others of its calls.
        if answer == self.default {
            return Ok(());
        }
        for name in rule.names() {
            let Some(Numbers { x86_64, i386, x32 }) = find(name) else { continue };
            let calls = [
                (Some(&mut self.x86_64), x86_64),
                (self.x32.as_mut(), x32),
                (self.i386.as_mut(), i386),
            ];
            for (calls, number) in calls {
                if let (Some(calls), Some(number)) = (calls, number) {
                    calls.at(number).add(&alternatives, answer);
                }
            }
            if alternatives.is_empty() {
                self.add_multiplexed(name, answer);
            }
        }
        Ok(())
    }

    /// i386 has some calls behind another one as well. What that is given for arguments is in memory, out of a filter's
    /// reach: only rules without conditions can be kept there.
    fn add_multiplexed(&mut self, name: &str, answer: u32) {
        let Some(calls) = &mut self.i386 else { return };
        let Some((through, value)) = multiplexed(name) else { return };
        let Some(number) = find(through).and_then(|numbers| numbers.i386) else { return };
        let operator = LinuxSeccompOperator::ScmpCmpEq;
        let condition = Condition { argument: 0, operator, value, mask: u64::MAX };
        calls.at(number).add(&[vec![condition]], answer);
    }

    /// Whether any call is answered by a listener.
    pub(super) fn notifies(&self) -> bool {
        let all = [Some(&self.x86_64), self.x32.as_ref(), self.i386.as_ref()];
        all.into_iter().flatten().flat_map(|calls| calls.all()).any(Decision::notifies)
    }

    /// Whether this call, entered as a 64-bit program does, may be.
    pub(super) fn native_notifies(&self, name: &str) -> bool {
        let number = find(name).and_then(|numbers| numbers.x86_64);
        number.and_then(|number| self.x86_64.get(number)).is_some_and(Decision::notifies)
    }
}

impl Calls {
    fn at(&mut self, number: u32) -> &mut Decision {
        let number = number as usize;
        if number >= self.0.len() {
            self.0.resize_with(USUAL.max(number + 1), Decision::default);
        }
        &mut self.0[number]
    }

    /// What is decided of each number from 0 on, as far as something is decided of any.
    pub(super) fn all(&self) -> &[Decision] {
        &self.0
    }

    fn get(&self, number: u32) -> Option<&Decision> {
        self.0.get(number as usize)
    }
}

impl Decision {
    fn add(&mut self, alternatives: &[Vec<Condition>], answer: u32) {
        if self.otherwise.is_some() {
            return;
        }
        if alternatives.is_empty() {
            self.otherwise = Some(answer);
            self.conditional.clear();
            return;
        }
        let rule = |conditions: &Vec<Condition>| Rule { conditions: conditions.clone(), answer };
        self.conditional.extend(alternatives.iter().map(rule));
    }

    fn notifies(&self) -> bool {
        let answers = self.conditional.iter().map(|rule| rule.answer).chain(self.otherwise);
        answers.into_iter().any(|answer| answer == libc::SECCOMP_RET_USER_NOTIF)
    }
}

/// The value for the kernel.
fn answer(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<u32> {
    use LinuxSeccompAction as Action;
    let number = errno.unwrap_or(libc::EPERM as u32);
    let data = || {
        let problem = || Error::invalid(field, format!("{number} is no errno"));
        if number <= MAX_ERRNO { Ok(number) } else { Err(problem()) }
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO | data()?,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE | data()?,
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    })
}

/// The sets of conditions under which a rule holds; none: always. All conditions must hold, except where two are about
/// one argument: then any of them, which is what runc made of it before libseccomp could do both, and profiles rely on.
fn alternatives(arguments: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>> {
    let conditions = arguments.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let mut uses: HashMap<u32, u32> = HashMap::new();
    for condition in &conditions {
        *uses.entry(condition.argument).or_default() += 1;
    }
    Ok(match conditions.is_empty() {
        true => Vec::new(),
        false if uses.values().any(|count| *count > 1) => {
            conditions.into_iter().map(|condition| vec![condition]).collect()
        }
        false => vec![conditions],
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition> {
    let index = u32::try_from(argument.index()).ok().filter(|index| *index < 6);
    let invalid = || Error::invalid(FIELD, format!("argument {}: 0 to 5", argument.index()));
    let operator = argument.op();
    let (mask, value) = match operator {
        // Two values: the mask, and what is left under it.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (argument.value(), argument.value_two().unwrap_or(0) & argument.value())
        }
        _ => (u64::MAX, argument.value()),
    };
    Ok(Condition { argument: index.ok_or_else(invalid)?, operator, value, mask })
}
