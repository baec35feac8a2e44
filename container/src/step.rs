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
