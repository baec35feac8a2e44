//! The steps between clone and execve, by name, so that a failure in the child can be told in words by the runtime:
//! the child sends a number, an index and an errno, because it must not allocate.

use crate::plan::Plan;
use crate::wire::EXEC_FAILED;
use nix::errno::Errno;

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
    NotDumpable,
    Keyring,
    JoinNamespace,
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
    CgroupMount,
    Device,
    DeviceLink,
    MaskPath,
    ReadonlyPath,
    ReadonlyRoot,
    AwaitCgroup,
    CgroupNamespace,
    Sysctl,
    Rlimit,
    ChangeRoot,
    RootPropagation,
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
    const ALL: [Step; 49] = [
        Step::CloseDescriptors,
        Step::Stdio,
        Step::NewSession,
        Step::AwaitIdMaps,
        Step::BecomeRoot,
        Step::OomScoreAdj,
        Step::NotDumpable,
        Step::Keyring,
        Step::JoinNamespace,
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
        Step::CgroupMount,
        Step::Device,
        Step::DeviceLink,
        Step::MaskPath,
        Step::ReadonlyPath,
        Step::ReadonlyRoot,
        Step::AwaitCgroup,
        Step::CgroupNamespace,
        Step::Sysctl,
        Step::Rlimit,
        Step::ChangeRoot,
        Step::RootPropagation,
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

impl Failure {
    /// Says what was attempted, on what, in the words of `plan`.
    pub(crate) fn describe(&self, plan: &Plan) -> String {
        let index = self.index as usize;
        let root = || plan.root.to_string();
        match self.step {
            Step::CloseDescriptors => "close the runtime's file descriptors".into(),
            Step::Stdio => format!("set up {}", ["stdin", "stdout", "stderr"].get(index).unwrap_or(&"stdio")),
            Step::NewSession => "start a new session".into(),
            Step::AwaitIdMaps => "wait for the uid and gid maps".into(),
            Step::BecomeRoot => "become root of the user namespace".into(),
            Step::NotDumpable => "hide from ptrace (PR_SET_DUMPABLE)".into(),
            Step::Keyring => {
                "join a new session keyring (the caller's quota of keys: /proc/key-users, kernel.keys.maxkeys)".into()
            }
            Step::JoinNamespace => match plan.join_namespaces.get(index) {
                Some(joined) => format!("join namespace {}", joined.path.display()),
                None => "join a namespace".into(),
            },
            Step::Hostname => "set the hostname".into(),
            Step::Domainname => "set the domain name".into(),
            Step::Loopback => "bring up the loopback interface".into(),
            Step::Propagation => "make the mount namespace private".into(),
            Step::OverlayLayer => format!("open overlay layer {}", plan.root.layer(index)),
            Step::OverlayUpper => format!("open the upper directory of {}", root()),
            Step::OverlayWork => format!("open the work directory of {}", root()),
            Step::MountRoot => format!("mount root filesystem {}", root()),
            Step::OpenRoot => format!("open root filesystem {}", root()),
            Step::MountTarget => format!("resolve or create mount destination {}", plan.mount_label(index)),
            Step::Mount => format!("mount {}", plan.mount_description(index)),
            Step::MountOptions => format!("apply the options of mount {}", plan.mount_description(index)),
            Step::CgroupMount => format!("mount cgroup hierarchy {}", plan.cgroup_mount_label(index)),
            Step::Device => format!("create device {}", plan.device_label(index)),
            Step::DeviceLink => "create the symbolic links in /dev".into(),
            Step::MaskPath => format!("mask {}", plan.masked_label(index)),
            Step::ReadonlyPath => format!("make {} read-only", plan.readonly_label(index)),
            Step::ReadonlyRoot => "make the root filesystem read-only".into(),
            Step::AwaitCgroup => "wait to be moved into the cgroup".into(),
            Step::CgroupNamespace => "make a cgroup namespace".into(),
            Step::Sysctl => format!("set sysctl {}", plan.sysctl_label(index)),
            Step::OomScoreAdj => {
                "set oom_score_adj (lowering it needs CAP_SYS_RESOURCE in the initial user namespace)".into()
            }
            Step::Rlimit => format!(
                "set {} (raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace)",
                plan.process.rlimit_label(index)
            ),
            Step::ChangeRoot => format!("change the root directory to {}", root()),
            Step::RootPropagation => "set rootfsPropagation".into(),
            Step::CreateWorkingDirectory => {
                format!("create working directory {}", plan.process.cwd.to_string_lossy())
            }
            Step::WorkingDirectory => {
                format!("change to working directory {}", plan.process.cwd.to_string_lossy())
            }
            Step::Groups => "set the additional groups".into(),
            Step::Group => format!("set gid {}", plan.process.gid),
            Step::User => format!("set uid {}", plan.process.uid),
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
            Step::Exec => format!("execute {}", plan.process.command()),
        }
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
