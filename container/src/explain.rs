//! What failed between clone and execve, from the child's numbers to an operator's words.

use std::ffi::CString;

use nix::errno::Errno;
use nix::sched::CloneFlags;

use crate::error::Error;
use crate::namespaces::JoinedNamespace;
use crate::plan::InitPlan;
use crate::process::plan::ProcessPlan;
use crate::process::rlimits::Rlimit;
use crate::rootfs::mounts::MountPlan;
use crate::rootfs::plan::RootfsPlan;
use crate::rootfs::resolve::InnerPath;
use crate::step::{Failure, Step};

/// A plan's parts, of which a step's index names one.
pub(crate) struct Words<'a> {
    process: &'a ProcessPlan,
    namespaces: &'a [JoinedNamespace],
    rootfs: Option<&'a RootfsPlan>,
    sysctls: &'a [(CString, CString)],
}

impl<'a> Words<'a> {
    /// Of a first process's plan.
    pub(crate) fn of_first(plan: &'a InitPlan) -> Self {
        let (rootfs, sysctls) = (Some(&plan.rootfs), plan.sysctls.as_slice());
        Words { process: &plan.process, namespaces: &plan.join_namespaces, rootfs, sysctls }
    }

    /// Of a process alone.
    pub(crate) fn of_process(process: &'a ProcessPlan) -> Self {
        Words { process, namespaces: &[], rootfs: None, sysctls: &[] }
    }
}

/// The error that a failure of the child is to the caller.
pub(crate) fn setup(id: &str, words: &Words, failure: Failure) -> Error {
    let command = words.process.command();
    match (failure.step, failure.errno) {
        (Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => Error::CommandNotFound { command },
        (Step::Exec, errno) => Error::CommandNotExecutable { command, source: errno.into() },
        // Of a change of propagation, EINVAL says just that (mount(2)).
        (Step::Propagation, Errno::EINVAL) => Error::RootNotMounted { id: id.to_owned() },
        (step, errno) => Error::Setup {
            id: id.to_owned(),
            attempt: describe(step, failure.index as usize, words),
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
fn describe(step: Step, index: usize, words: &Words) -> String {
    let Words { process, namespaces, rootfs, sysctls } = *words;
    let root = rootfs.map(|rootfs| rootfs.root.to_string()).unwrap_or_default();
    let mounts = rootfs.map(|rootfs| rootfs.mounts.as_slice()).unwrap_or_default();
    match step {
        Step::CloseDescriptors => "close the runtime's file descriptors".into(),
        Step::Stdio => format!("set up {}", ["stdin", "stdout", "stderr"].get(index).unwrap_or(&"stdio")),
        Step::NewSession => "start a new session".into(),
        Step::AwaitIdMaps => "wait for the uid and gid maps".into(),
        Step::BecomeRoot => "become root of the user namespace".into(),
        Step::TimeNamespace => "make a time namespace with linux.timeOffsets".into(),
        Step::NotDumpable => "hide from ptrace (PR_SET_DUMPABLE)".into(),
        Step::Keyring => {
            "join a new session keyring (the caller's quota of keys: /proc/key-users, kernel.keys.maxkeys)".into()
        }
        Step::JoinNamespace => match namespaces.get(index) {
            Some(joined) => format!("join namespace {}", joined.path.display()),
            None => "join a namespace".into(),
        },
        Step::JoinContainer => "join its namespaces".into(),
        Step::Hostname => "set the hostname".into(),
        Step::Domainname => "set the domain name".into(),
        Step::Loopback => "bring up the loopback interface".into(),
        Step::Propagation => "make the mount namespace private".into(),
        Step::OverlayLayer => format!("open overlay layer {}", rootfs.map(|rootfs| rootfs.root.layer(index)).unwrap_or_default()),
        Step::OverlayUpper => format!("open the upper directory of {root}"),
        Step::OverlayWork => format!("open the work directory of {root}"),
        Step::MountRoot => format!("mount root filesystem {root}"),
        Step::OpenRoot => format!("open root filesystem {root}"),
        Step::MountTarget => format!("resolve or create mount destination {}", label(mounts, index, |mount| mount.target.to_string())),
        Step::Mount => format!("mount {}", label(mounts, index, MountPlan::describe)),
        Step::MountOptions => format!("apply the options of mount {}", label(mounts, index, MountPlan::describe)),
        Step::CopyUp => format!("copy what is below to {}", label(mounts, index, |mount| mount.target.to_string())),
        Step::CgroupMount => format!("mount cgroup hierarchy {}", rootfs.and_then(|rootfs| rootfs.cgroup_mount.as_ref()).map(|mount| mount.describe(index)).unwrap_or_default()),
        Step::Device => format!("create device {}", label(rootfs.map(|rootfs| rootfs.devices.as_slice()).unwrap_or_default(), index, |device| device.path.to_string())),
        Step::DeviceLink => "create the symbolic links in /dev".into(),
        Step::MaskPath => format!("mask {}", label(rootfs.map(|rootfs| rootfs.masked.as_slice()).unwrap_or_default(), index, InnerPath::to_string)),
        Step::ReadonlyPath => format!("make {} read-only", label(rootfs.map(|rootfs| rootfs.readonly.as_slice()).unwrap_or_default(), index, InnerPath::to_string)),
        Step::ReadonlyRoot => "make the root filesystem read-only".into(),
        Step::AwaitCgroup => "wait to be moved into the cgroup".into(),
        Step::AwaitHooks => "wait for the hooks of the creation".into(),
        Step::CgroupNamespace => "make a cgroup namespace".into(),
        Step::Sysctl => format!("set sysctl {}", label(sysctls, index, |(path, _)| path.to_string_lossy().into_owned())),
        Step::OomScoreAdj => {
            "set oom_score_adj (lowering it needs CAP_SYS_RESOURCE in the initial user namespace)".into()
        }
        Step::Rlimit => format!(
            "set {} (raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace)",
            label(&process.rlimits, index, Rlimit::label)
        ),
        Step::InitialCpus => "set process.execCPUAffinity.initial".into(),
        Step::FinalCpus => "set process.execCPUAffinity.final".into(),
        Step::Scheduler => "set process.scheduler".into(),
        Step::IoPriority => "set process.ioPriority".into(),
        Step::MemoryPolicy => "set linux.memoryPolicy".into(),
        Step::Personality => "set linux.personality".into(),
        Step::Label => "set process.apparmorProfile or selinuxLabel".into(),
        Step::ChangeRoot => format!("change the root directory to {root}"),
        Step::RootPropagation => "set rootfsPropagation".into(),
        Step::Terminal => "make a terminal in the devpts at /dev/pts".into(),
        Step::ControllingTerminal => "make the terminal the controlling one and the standard streams".into(),
        Step::CreateWorkingDirectory => {
            format!("create working directory {}", process.cwd.to_string_lossy())
        }
        Step::WorkingDirectory => {
            format!("change to working directory {}", process.cwd.to_string_lossy())
        }
        Step::Groups => "set the additional groups".into(),
        Step::Group => format!("set gid {}", process.gid),
        Step::User => format!("set uid {}", process.uid),
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
        Step::Exec => format!("execute {}", process.command()),
        }
}
