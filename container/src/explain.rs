//! What failed between clone and execve, from the child's numbers to an operator's words.

use nix::errno::Errno;
use nix::sched::CloneFlags;

use crate::error::Error;
use crate::plan::InitPlan;
use crate::process::rlimits::Rlimit;
use crate::rootfs::mounts::MountPlan;
use crate::rootfs::resolve::InnerPath;
use crate::step::{Failure, Step};

/// The error that a failure of the child is to the caller.
pub(crate) fn setup(id: &str, plan: &InitPlan, failure: Failure) -> Error {
    let command = plan.process.command();
    match (failure.step, failure.errno) {
        (Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => Error::CommandNotFound { command },
        (Step::Exec, errno) => Error::CommandNotExecutable { command, source: errno.into() },
        // Of a change of propagation, EINVAL says just that (mount(2)).
        (Step::Propagation, Errno::EINVAL) => Error::RootNotMounted { id: id.to_owned() },
        (step, errno) => Error::Setup {
            id: id.to_owned(),
            attempt: describe(step, failure.index as usize, plan),
            source: errno.into(),
        },
    }
}

/// The error that a failed clone is, with what an operator can do about it.
pub(crate) fn clone(errno: Errno, namespaces: CloneFlags) -> Error {
    let hint = match errno {
        Errno::EPERM if namespaces.contains(CloneFlags::CLONE_NEWUSER) => {
            " (are unprivileged user namespaces allowed here? see sysctl kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces)"
        }
        Errno::EPERM => " (run as root, or configure a user namespace)",
        Errno::ENOSPC => " (a limit of user.max_*_namespaces is reached)",
        Errno::EAGAIN => " (a process limit is reached)",
        _ => "",
    };
    Error::host(format!("clone a process into new namespaces {namespaces:?}{hint}"), errno)
}

/// The words for one of several; a child that lies about the index is told without.
fn label<T>(all: &[T], index: usize, words: impl Fn(&T) -> String) -> String {
    all.get(index).map(words).unwrap_or_default()
}

/// Says what was attempted, on what.
fn describe(step: Step, index: usize, plan: &InitPlan) -> String {
    let rootfs = &plan.rootfs;
    let root = &rootfs.root;
    match step {
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
        Step::OverlayLayer => format!("open overlay layer {}", root.layer(index)),
        Step::OverlayUpper => format!("open the upper directory of {root}"),
        Step::OverlayWork => format!("open the work directory of {root}"),
        Step::MountRoot => format!("mount root filesystem {root}"),
        Step::OpenRoot => format!("open root filesystem {root}"),
        Step::MountTarget => format!("resolve or create mount destination {}", label(&rootfs.mounts, index, |mount| mount.target.to_string())),
        Step::Mount => format!("mount {}", label(&rootfs.mounts, index, MountPlan::describe)),
        Step::MountOptions => format!("apply the options of mount {}", label(&rootfs.mounts, index, MountPlan::describe)),
        Step::CgroupMount => format!("mount cgroup hierarchy {}", label(rootfs.cgroup_mount.as_slice(), 0, |mount| mount.describe(index))),
        Step::Device => format!("create device {}", label(&rootfs.devices, index, |device| device.path.to_string())),
        Step::DeviceLink => "create the symbolic links in /dev".into(),
        Step::MaskPath => format!("mask {}", label(&rootfs.masked, index, InnerPath::to_string)),
        Step::ReadonlyPath => format!("make {} read-only", label(&rootfs.readonly, index, InnerPath::to_string)),
        Step::ReadonlyRoot => "make the root filesystem read-only".into(),
        Step::AwaitCgroup => "wait to be moved into the cgroup".into(),
        Step::CgroupNamespace => "make a cgroup namespace".into(),
        Step::Sysctl => format!("set sysctl {}", label(&plan.sysctls, index, |(path, _)| path.to_string_lossy().into_owned())),
        Step::OomScoreAdj => {
            "set oom_score_adj (lowering it needs CAP_SYS_RESOURCE in the initial user namespace)".into()
        }
        Step::Rlimit => format!(
            "set {} (raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace)",
            label(&plan.process.rlimits, index, Rlimit::label)
        ),
        Step::ChangeRoot => format!("change the root directory to {root}"),
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
