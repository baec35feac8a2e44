//! The steps between clone and execve, by name, so that a failure in the child can be told in words by the runtime:
//! the child sends a number, an index and an errno, because it must not allocate.

use nix::errno::Errno;

use crate::wire::EXEC_FAILED;

/// A step that the child takes. `index` of a [`Failure`] tells which of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Step {
    CloseDescriptors,
    Stdio,
    NewSession,
    AwaitIdMaps,
    BecomeRoot,
    OomScoreAdj,
    TimeNamespace,
    NotDumpable,
    Keyring,
    JoinNamespace,
    JoinContainer,
    Hostname,
    Domainname,
    Loopback,
    Propagation,
    OverlayLayer,
    OverlayUpper,
    OverlayWork,
    MountRoot,
    OpenRoot,
    MountTarget,
    Mount,
    MountOptions,
    CopyUp,
    CgroupMount,
    Device,
    DeviceLink,
    MaskPath,
    ReadonlyPath,
    ReadonlyRoot,
    AwaitCgroup,
    AwaitHooks,
    CgroupNamespace,
    Sysctl,
    Rlimit,
    InitialCpus,
    FinalCpus,
    Scheduler,
    IoPriority,
    MemoryPolicy,
    Personality,
    Label,
    ChangeRoot,
    RootPropagation,
    Terminal,
    ControllingTerminal,
    CreateWorkingDirectory,
    WorkingDirectory,
    Groups,
    Group,
    User,
    BoundingSet,
    Capabilities,
    AmbientSet,
    NoNewPrivileges,
    Seccomp,
    ParentDeathSignal,
    Report,
    AwaitStart,
    Signals,
    Trampoline,
    Exec,
}

/// What knows the parts of a plan by their names.
pub(crate) trait Parts {
    /// What a step is about: of several parts the one that `index` names. Empty where a step is about nothing that has a
    /// name, and for a child that lies about the index.
    fn part(&self, step: Step, index: usize) -> String;
}

/// A step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub step: Step,
    pub index: u32,
    pub errno: Errno,
}

/// Names the step at which a system call failed.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            step,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            errno,
        })
    }
}

impl Step {
    const ALL: [Step; 62] = [
        Step::CloseDescriptors,
        Step::Stdio,
        Step::NewSession,
        Step::AwaitIdMaps,
        Step::BecomeRoot,
        Step::OomScoreAdj,
        Step::TimeNamespace,
        Step::NotDumpable,
        Step::Keyring,
        Step::JoinNamespace,
        Step::JoinContainer,
        Step::Hostname,
        Step::Domainname,
        Step::Loopback,
        Step::Propagation,
        Step::OverlayLayer,
        Step::OverlayUpper,
        Step::OverlayWork,
        Step::MountRoot,
        Step::OpenRoot,
        Step::MountTarget,
        Step::Mount,
        Step::MountOptions,
        Step::CopyUp,
        Step::CgroupMount,
        Step::Device,
        Step::DeviceLink,
        Step::MaskPath,
        Step::ReadonlyPath,
        Step::ReadonlyRoot,
        Step::AwaitCgroup,
        Step::AwaitHooks,
        Step::CgroupNamespace,
        Step::Sysctl,
        Step::Rlimit,
        Step::InitialCpus,
        Step::FinalCpus,
        Step::Scheduler,
        Step::IoPriority,
        Step::MemoryPolicy,
        Step::Personality,
        Step::Label,
        Step::ChangeRoot,
        Step::RootPropagation,
        Step::Terminal,
        Step::ControllingTerminal,
        Step::CreateWorkingDirectory,
        Step::WorkingDirectory,
        Step::Groups,
        Step::Group,
        Step::User,
        Step::BoundingSet,
        Step::Capabilities,
        Step::AmbientSet,
        Step::NoNewPrivileges,
        Step::Seccomp,
        Step::ParentDeathSignal,
        Step::Report,
        Step::AwaitStart,
        Step::Signals,
        Step::Trampoline,
        Step::Exec,
    ];

    /// Says what was attempted. `part`: as [`Parts::part`] names it.
    pub(crate) fn attempt(self, index: u32, part: &str) -> String {
        match self {
            Step::CloseDescriptors => "close the runtime's file descriptors".into(),
            Step::Stdio => format!("set up {}", ["stdin", "stdout", "stderr"].get(index as usize).unwrap_or(&"stdio")),
            Step::NewSession => "start a new session".into(),
            Step::AwaitIdMaps => "wait for the uid and gid maps".into(),
            Step::BecomeRoot => "become root of the user namespace".into(),
            Step::TimeNamespace => "make a time namespace with linux.timeOffsets".into(),
            Step::NotDumpable => "hide from ptrace (PR_SET_DUMPABLE)".into(),
            Step::Keyring => {
                "join a new session keyring (the caller's quota of keys: /proc/key-users, kernel.keys.maxkeys)".into()
            }
            Step::JoinNamespace => format!("join namespace {part}"),
            Step::JoinContainer => "join its namespaces".into(),
            Step::Hostname => "set the hostname".into(),
            Step::Domainname => "set the domain name".into(),
            Step::Loopback => "bring up the loopback interface".into(),
            Step::Propagation => "make the mount namespace private".into(),
            Step::OverlayLayer => format!("open overlay layer {part}"),
            Step::OverlayUpper => format!("open the upper directory of {part}"),
            Step::OverlayWork => format!("open the work directory of {part}"),
            Step::MountRoot => format!("mount root filesystem {part}"),
            Step::OpenRoot => format!("open root filesystem {part}"),
            Step::MountTarget => format!("resolve or create mount destination {part}"),
            Step::Mount => format!("mount {part}"),
            Step::MountOptions => format!("apply the options of mount {part}"),
            Step::CopyUp => format!("copy what is below to {part}"),
            Step::CgroupMount => format!("mount cgroup hierarchy {part}"),
            Step::Device => format!("create device {part}"),
            Step::DeviceLink => "create the symbolic links in /dev".into(),
            Step::MaskPath => format!("mask {part}"),
            Step::ReadonlyPath => format!("make {part} read-only"),
            Step::ReadonlyRoot => "make the root filesystem read-only".into(),
            Step::AwaitCgroup => "wait to be moved into the cgroup".into(),
            Step::AwaitHooks => "wait for the hooks of the creation".into(),
            Step::CgroupNamespace => "make a cgroup namespace".into(),
            Step::Sysctl => format!("set sysctl {part}"),
            Step::OomScoreAdj => {
                "set oom_score_adj (lowering it needs CAP_SYS_RESOURCE in the initial user namespace)".into()
            }
            Step::Rlimit => {
                format!("set {part} (raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace)")
            }
            Step::InitialCpus => "set process.execCPUAffinity.initial".into(),
            Step::FinalCpus => "set process.execCPUAffinity.final".into(),
            Step::Scheduler => "set process.scheduler".into(),
            Step::IoPriority => "set process.ioPriority".into(),
            Step::MemoryPolicy => "set linux.memoryPolicy".into(),
            Step::Personality => "set linux.personality".into(),
            Step::Label => "set process.apparmorProfile or selinuxLabel".into(),
            Step::ChangeRoot => format!("change the root directory to {part}"),
            Step::RootPropagation => "set rootfsPropagation".into(),
            Step::Terminal => "make a terminal in the devpts at /dev/pts".into(),
            Step::ControllingTerminal => "make the terminal the controlling one and the standard streams".into(),
            Step::CreateWorkingDirectory => format!("create working directory {part}"),
            Step::WorkingDirectory => format!("change to working directory {part}"),
            Step::Groups => "set the additional groups".into(),
            Step::Group => format!("set gid {part}"),
            Step::User => format!("set uid {part}"),
            Step::BoundingSet => format!("drop capability {index} from the bounding set"),
            Step::Capabilities => "set the capabilities".into(),
            Step::AmbientSet => format!("raise ambient capability {index}"),
            Step::NoNewPrivileges => "set no_new_privs".into(),
            Step::Seccomp => "install the seccomp filter".into(),
            Step::ParentDeathSignal => "ask to be killed with the runtime".into(),
            Step::Report => "report to the runtime".into(),
            Step::AwaitStart => "wait to be started".into(),
            Step::Signals => "reset signals".into(),
            Step::Trampoline => "execute the trampoline (memfd)".into(),
            Step::Exec => format!("execute {part}"),
        }
    }

    pub(crate) fn from_wire(number: u32) -> Option<Step> {
        if number == EXEC_FAILED {
            return Some(Step::Exec);
        }
        Step::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_and_the_list_agree() {
        for (number, step) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, number);
        }
        assert_eq!(Step::from_wire(Step::ALL.len() as u32), None);
    }
}
