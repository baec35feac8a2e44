//! How the kernel treats the process beside others: scheduler, I/O priority, CPUs, memory of which nodes.

use std::mem::size_of_val;

use nix::errno::Errno;
use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, Process, Scheduler,
};

use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};

/// CPUs or nodes that can be named: the kernel's most.
const MOST: usize = 8192;

/// A set of CPUs or nodes, bit by bit, as the kernel takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Set(Vec<libc::c_ulong>);

/// What is asked for; the rest stays as the runtime has it.
#[derive(Debug, Default)]
pub(crate) struct SchedulingPlan {
    scheduler: Option<Attributes>,
    io_priority: Option<libc::c_int>,
    /// Before it is in its cgroups, and when all else is done: of further processes alone.
    initial_cpus: Option<Set>,
    final_cpus: Option<Set>,
    personality: Option<libc::c_ulong>,
    memory: Option<(libc::c_int, Set)>,
}

/// `struct sched_attr` of `linux/sched/types.h`, first version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl SchedulingPlan {
    /// What the process itself asks for.
    pub(crate) fn new(process: &Process) -> Result<Self> {
        let affinity = process.exec_cpu_affinity().as_ref();
        let cpus = |get: fn(&ExecCPUAffinity) -> &Option<String>| {
            let list = affinity.and_then(|affinity| get(affinity).as_deref());
            list.map(|list| Set::parse(list, "process.execCPUAffinity")).transpose()
        };
        Ok(SchedulingPlan {
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            initial_cpus: cpus(ExecCPUAffinity::initial)?,
            final_cpus: cpus(ExecCPUAffinity::cpu_affinity_final)?,
            personality: None,
            memory: None,
        })
    }

    /// A container's first process is no further one (config.md, `execCPUAffinity`).
    pub(crate) fn first(&mut self) {
        (self.initial_cpus, self.final_cpus) = (None, None);
    }

    pub(crate) fn set_personality(&mut self, personality: &LinuxPersonality) -> Result<()> {
        if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            // config-linux.md: there is none that may be given.
            return Err(Error::unsupported("linux.personality.flags", "no flag is supported"));
        }
        // linux/personality.h
        self.personality = Some(match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        });
        Ok(())
    }

    pub(crate) fn set_memory_policy(&mut self, policy: &LinuxMemoryPolicy) -> Result<()> {
        use MemoryPolicyModeType as Mode;
        let field = "linux.memoryPolicy.nodes";
        let nodes = policy.nodes().as_deref().filter(|nodes| !nodes.is_empty());
        let nodes = nodes.map(|nodes| Set::parse(nodes, field)).transpose()?;
        // linux/mempolicy.h
        let mode = match policy.mode() {
            Mode::MpolDefault => 0,
            Mode::MpolPreferred => 1,
            Mode::MpolBind => 2,
            Mode::MpolInterleave => 3,
            Mode::MpolLocal => 4,
            Mode::MpolPreferredMany => 5,
            Mode::MpolWeightedInterleave => 6,
        };
        let without = matches!(policy.mode(), Mode::MpolDefault | Mode::MpolLocal);
        let is_optional = policy.mode() == Mode::MpolPreferred;
        if (without && nodes.is_some()) || (!without && !is_optional && nodes.is_none()) {
            let problem = format!("{}: nodes do not go with it, or are missing", policy.mode());
            return Err(Error::invalid(field, problem));
        }
        let flags = policy.flags().iter().flatten().map(|flag| match flag {
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        });
        let mode = flags.fold(mode, |all, flag| all | flag);
        self.memory = Some((mode, nodes.unwrap_or(Set(Vec::new()))));
        Ok(())
    }

    /// Child: on which CPUs it joins the container.
    pub(crate) fn before_joining(&self) -> Result<(), Failure> {
        self.initial_cpus.as_ref().map_or(Ok(()), Set::keep_to).at(Step::InitialCpus)
    }

    /// Child: all the rest, while the process has the runtime's rights and is in its cgroups.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if let Some(cpus) = &self.final_cpus {
            cpus.keep_to().at(Step::FinalCpus)?;
        }
        if let Some(attributes) = &self.scheduler {
            attributes.apply().at(Step::Scheduler)?;
        }
        if let Some(priority) = self.io_priority {
            let (own_process, own) = (1, 0);
            // SAFETY: integers only.
            let set = unsafe { libc::syscall(libc::SYS_ioprio_set, own_process, own, priority) };
            Errno::result(set).map(drop).at(Step::IoPriority)?;
        }
        if let Some((mode, Set(nodes))) = &self.memory {
            let bits = nodes.len() * libc::c_ulong::BITS as usize;
            // The kernel takes one bit less than it is told.
            let told = if bits == 0 { 0 } else { bits + 1 };
            // SAFETY: the kernel reads as many bits as there are.
            let set =
                unsafe { libc::syscall(libc::SYS_set_mempolicy, *mode, nodes.as_ptr(), told) };
            Errno::result(set).map(drop).at(Step::MemoryPolicy)?;
        }
        if let Some(personality) = self.personality {
            // SAFETY: an integer.
            Errno::result(unsafe { libc::personality(personality) })
                .map(drop)
                .at(Step::Personality)?;
        }
        Ok(())
    }
}

impl Attributes {
    fn apply(&self) -> Result<(), Errno> {
        // SAFETY: the kernel reads as much as `size` says, which is the structure's.
        let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(self), 0) };
        Errno::result(set).map(drop)
    }
}

fn scheduler(scheduler: &Scheduler) -> Result<Attributes> {
    use LinuxSchedulerFlag as Flag;
    use LinuxSchedulerPolicy as Policy;
    // linux/sched.h
    let policy = match scheduler.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => {
            return Err(Error::unsupported("process.scheduler.policy", "Linux has no SCHED_ISO"));
        }
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().map(|flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    });
    let priority = scheduler.priority().unwrap_or(0);
    let priority = u32::try_from(priority).map_err(|_| {
        Error::invalid("process.scheduler.priority", format!("{priority} is negative"))
    })?;
    Ok(Attributes {
        size: size_of::<Attributes>() as u32,
        policy,
        flags: flags.fold(0, |all, flag| all | flag),
        nice: scheduler.nice().unwrap_or(0),
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

/// `linux/ioprio.h`: the class above 13 bits of priority.
fn io_priority(priority: &LinuxIOPriority) -> Result<libc::c_int> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let number = libc::c_int::try_from(priority.priority()).ok().filter(|one| (0..8).contains(one));
    let invalid = || {
        Error::invalid("process.ioPriority.priority", format!("{}: 0 to 7", priority.priority()))
    };
    Ok(class << 13 | number.ok_or_else(invalid)?)
}

impl Set {
    /// `0-3,7`, as cpuset(7) has it.
    fn parse(list: &str, field: &str) -> Result<Set> {
        let invalid = || Error::invalid(field, format!("{list:?} is no list like 0-3,7"));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|one| *one < MOST);
        let mut words = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = number(first).ok_or_else(invalid)?;
            let last = number(last).filter(|last| *last >= first).ok_or_else(invalid)?;
            for one in first..=last {
                let bits = libc::c_ulong::BITS as usize;
                words.resize(words.len().max(one / bits + 1), 0);
                words[one / bits] |= 1 << (one % bits);
            }
        }
        Ok(Set(words))
    }

    /// Child: takes the set for its CPUs.
    fn keep_to(&self) -> Result<(), Errno> {
        let length = size_of_val(self.0.as_slice());
        // SAFETY: the kernel reads `length` bytes of the set.
        let set = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, length, self.0.as_ptr()) };
        Errno::result(set).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(Set::parse("0", "f").unwrap(), Set(vec![1]));
        assert_eq!(Set::parse("0-3,7, 65", "f").unwrap(), Set(vec![0x8f, 2]));
        for bad in ["", "x", "3-1", "-1", "0,,1", "8192", "1-"] {
            assert!(Set::parse(bad, "f").is_err(), "{bad}");
        }
    }
}
