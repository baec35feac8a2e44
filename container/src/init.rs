//! What runs inside, between clone and execve: the whole life of the child on one page.
//!
//! Every function called from here is marked "Child:" in its documentation: system calls and prepared memory only, no
//! allocation, no locks (see `clone`). Errors are numbers, told in words by the runtime.

use std::convert::Infallible;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};

use crate::channel::{self, Command};
use crate::descriptors;
use crate::namespaces;
use crate::plan::InitPlan;
use crate::process::trampoline::Trampoline;
use crate::process::{credentials, exec, keyring};
use crate::step::{At, Failure, Step};

/// Child: carries out the plan and executes the trampoline, or reports what failed and exits with the code that
/// [`crate::Error::exit_code`] gives. `keep`: the descriptors to keep, ascending.
pub(crate) fn run(
    plan: &InitPlan,
    trampoline: &Trampoline,
    channel: BorrowedFd,
    keep: &[RawFd],
) -> ! {
    let child_end = channel.as_raw_fd();
    let executed = set_up(plan, child_end, keep).and_then(|()| execute(plan, trampoline, channel));
    let failure = match executed {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    channel::report_failure(child_end, &failure);
    let code = match (failure.step, failure.errno) {
        (Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => 127,
        (Step::Exec, _) => 126,
        _ => 125,
    };
    // SAFETY: ends this process at once, without running the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

fn set_up(plan: &InitPlan, child_end: RawFd, keep: &[RawFd]) -> Result<(), Failure> {
    descriptors::close_all_but(keep).at(Step::CloseDescriptors)?;
    plan.stdio.apply().map_err(|(index, errno)| Failure {
        step: Step::Stdio,
        index: index as u32,
        errno,
    })?;
    nix::unistd::setsid().at(Step::NewSession)?;
    umask(Mode::empty());
    if plan.user_namespace {
        channel::await_command(child_end, Command::Mapped).at(Step::AwaitIdMaps)?;
        credentials::become_root_of_user_namespace()?;
    }
    if let Some(score) = &plan.process.oom_score_adj {
        write_file(c"/proc/self/oom_score_adj", score).at(Step::OomScoreAdj)?;
    }
    // From here on there may be others about that are not ours: none of them looks at this process, which still is
    // the runtime, through ptrace or /proc. Only now: it makes our own files of /proc those of the host's root.
    prctl::set_dumpable(false).at(Step::NotDumpable)?;
    if plan.process.new_keyring {
        keyring::join_new_session().at(Step::Keyring)?;
    }
    namespaces::join_all(&plan.join_namespaces)?;
    name_the_host(plan)?;
    if plan.loopback {
        namespaces::bring_up_loopback().at(Step::Loopback)?;
    }
    let rootfs = &plan.rootfs;
    let root = rootfs.root.mount()?;
    let mut cgroup = CgroupEntry { plan, child_end, entered: false };
    rootfs.fill(root.as_fd(), plan.user_namespace, || cgroup.enter())?;
    cgroup.enter()?;
    set_host_files(plan)?;
    if rootfs.root.readonly {
        rootfs.root.make_readonly(&root)?;
    }
    rootfs.root.enter(&root)?;
    drop(root);
    become_the_process(plan)?;
    channel::report_ready(child_end).at(Step::Report)?;
    channel::await_command(child_end, Command::Start).at(Step::AwaitStart)
}

fn execute(
    plan: &InitPlan,
    trampoline: &Trampoline,
    channel: BorrowedFd,
) -> Result<Infallible, Failure> {
    plan.process.exec.reset_signals().at(Step::Signals)?;
    exec::close_descriptors_on_exec().at(Step::CloseDescriptors)?;
    if let Some(filter) = plan.process.seccomp.as_ref().filter(|_| plan.process.no_new_privileges) {
        filter.install().at(Step::Seccomp)?;
    }
    let errno = trampoline.execute(&plan.process.exec, channel);
    // What is too long for it is what the program's own arguments and environment made too long.
    let step = if errno == Errno::E2BIG { Step::Exec } else { Step::Trampoline };
    Err(Failure { step, index: 0, errno })
}

fn name_the_host(plan: &InitPlan) -> Result<(), Failure> {
    if let Some(hostname) = &plan.hostname {
        nix::unistd::sethostname(OsStr::from_bytes(hostname.as_bytes())).at(Step::Hostname)?;
    }
    if let Some(domainname) = &plan.domainname {
        let bytes = domainname.as_bytes();
        // SAFETY: the kernel reads `len` bytes from the pointer.
        let result = unsafe { libc::setdomainname(bytes.as_ptr().cast(), bytes.len()) };
        Errno::result(result).at(Step::Domainname)?;
    }
    Ok(())
}

/// Waits, once, until the runtime has moved this process into its cgroups, and makes the cgroup namespace.
struct CgroupEntry<'a> {
    plan: &'a InitPlan,
    child_end: RawFd,
    entered: bool,
}

impl CgroupEntry<'_> {
    fn enter(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.entered, true) {
            return Ok(());
        }
        if self.plan.await_cgroup {
            channel::await_command(self.child_end, Command::Joined).at(Step::AwaitCgroup)?;
        }
        if self.plan.cgroup_namespace {
            unshare(CloneFlags::CLONE_NEWCGROUP).at(Step::CgroupNamespace)?;
        }
        Ok(())
    }
}

/// What is set through the host's /proc, as long as it is in sight.
fn set_host_files(plan: &InitPlan) -> Result<(), Failure> {
    for (index, (path, value)) in plan.sysctls.iter().enumerate() {
        write_file(path, value).at_index(Step::Sysctl, index)?;
    }
    for (index, limit) in plan.process.rlimits.iter().enumerate() {
        limit.apply().at_index(Step::Rlimit, index)?;
    }
    Ok(())
}

fn write_file(path: &CStr, value: &CStr) -> Result<(), Errno> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, value.to_bytes()).map(drop)
}

fn become_the_process(plan: &InitPlan) -> Result<(), Failure> {
    let process = &plan.process;
    if process.create_cwd {
        create_working_directory(&process.cwd).at(Step::CreateWorkingDirectory)?;
    }
    // Without no_new_privs a filter needs a capability that the process may not keep; with it, the later the fewer of
    // our own calls it has to let through.
    if let Some(filter) = process.seccomp.as_ref().filter(|_| !process.no_new_privileges) {
        filter.install().at(Step::Seccomp)?;
    }
    credentials::apply(process)?;
    if process.kill_with_parent {
        // After the user changed, which clears it. Had the runtime died before, its end of the channel would be
        // closed, and waiting for the start below would end this process.
        prctl::set_pdeathsig(Signal::SIGKILL).at(Step::ParentDeathSignal)?;
    }
    if process.no_new_privileges {
        prctl::set_no_new_privs().at(Step::NoNewPrivileges)?;
    }
    umask(Mode::from_bits_truncate(process.umask));
    Ok(())
}

/// Makes the directory and its parents, in the root that is already entered: nothing leads out of it any more.
fn create_working_directory(cwd: &CStr) -> Result<(), Errno> {
    let bytes = cwd.to_bytes();
    let mut path = [0u8; libc::PATH_MAX as usize];
    let room = path.len() - 1;
    if bytes.len() > room {
        return Err(Errno::ENAMETOOLONG);
    }
    for (index, byte) in bytes.iter().enumerate() {
        if *byte == b'/' && index > 0 {
            make_directory(&path)?;
        }
        path[index] = *byte;
    }
    make_directory(&path)
}

fn make_directory(path: &[u8]) -> Result<(), Errno> {
    let path = CStr::from_bytes_until_nul(path).map_err(|_| Errno::EINVAL)?;
    match nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}
