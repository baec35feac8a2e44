//! What runs inside, between clone and execve: the whole life of the child on one page.
//!
//! Every function called from here is marked "Child:" in its documentation: system calls and prepared memory only, no
//! allocation, no locks (see `clone`). Errors are numbers, told in words by the runtime.

use std::convert::Infallible;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};

use crate::channel::{self, Command};
use crate::child_plan::ChildPlan;
use crate::descriptors;
use crate::later;
use crate::namespaces;
use crate::plan::InitPlan;
use crate::proc_file;
use crate::process::plan::ProcessPlan;
use crate::process::seccomp::Filter;
use crate::process::stdio::StdioPlan;
use crate::process::terminal::{self, TerminalPlan};
use crate::process::trampoline::Trampoline;
use crate::process::{credentials, exec, keyring};
use crate::rootfs::mounts::MountPlan;
use crate::step::{At, Failure, Step};

/// Child: carries out the plan and executes the trampoline, or reports what failed and exits with the code that
/// [`crate::Error::exit_code`] gives. `keep`: the descriptors to keep, ascending.
pub(crate) fn run(
    plan: &impl ChildPlan,
    trampoline: &Trampoline,
    channel: BorrowedFd,
    keep: &[RawFd],
) -> ! {
    let child_end = channel.as_raw_fd();
    let closed = descriptors::close_all_but(keep).at(Step::CloseDescriptors);
    let ready = closed.and_then(|()| plan.set_up(child_end));
    let further = plan.further_descriptors();
    let executed = ready.and_then(|()| execute(plan.process(), further, trampoline, channel));
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

impl ChildPlan for InitPlan {
    fn process(&self) -> &ProcessPlan {
        &self.process
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let namespaces = self.join_namespaces.iter().map(|joined| joined.fd.as_raw_fd());
        let socket = self.start_socket.as_ref().map(AsRawFd::as_raw_fd);
        let mounts = self.rootfs.mounts.iter().filter_map(MountPlan::descriptor);
        let root = self.rootfs.root.descriptor();
        self.stdio.descriptors().chain(namespaces).chain(socket).chain(mounts).chain(root).collect()
    }

    fn further_descriptors(&self) -> u32 {
        self.stdio.further
    }

    fn begins_elsewhere(&self) -> bool {
        self.join_before
    }

    fn enter(&self) -> Result<(), Failure> {
        set_oom_score(&self.process)?;
        namespaces::join_from_outside(&self.join_namespaces)
    }

    fn set_up(&self, child_end: RawFd) -> Result<(), Failure> {
        take_streams(&self.stdio)?;
        nix::unistd::setsid().at(Step::NewSession)?;
        umask(Mode::empty());
        if self.await_id_maps {
            channel::await_command(child_end, Command::Mapped).at(Step::AwaitIdMaps)?;
        }
        if !self.join_before {
            set_oom_score(&self.process)?;
        }
        if self.user_namespace {
            credentials::become_root_of_user_namespace()?;
        }
        if let Some(offsets) = &self.time {
            namespaces::enter_new_time(offsets).at(Step::TimeNamespace)?;
        }
        // From here on there may be others about that are not ours: none of them looks at this process, which still
        // is the runtime, through ptrace or /proc. Only now: it makes our own files of /proc those of the host's root.
        prctl::set_dumpable(false).at(Step::NotDumpable)?;
        if self.process.new_keyring {
            keyring::join_new_session().at(Step::Keyring)?;
        }
        if !self.join_before {
            namespaces::join_all(&self.join_namespaces)?;
        }
        name_the_host(self)?;
        if self.loopback {
            namespaces::bring_up_loopback().at(Step::Loopback)?;
        }
        let rootfs = &self.rootfs;
        let root = rootfs.root.mount()?;
        let mut cgroup = CgroupEntry { plan: self, child_end, entered: false };
        rootfs.fill(root.as_fd(), self.user_namespace, || cgroup.enter())?;
        cgroup.enter()?;
        if self.await_hooks {
            channel::report_filled(child_end).at(Step::Report)?;
            channel::await_command(child_end, Command::Hooked).at(Step::AwaitHooks)?;
        }
        set_host_files(self)?;
        if let Some(terminal) = &self.process.terminal {
            take_terminal(terminal, &root, self.process.uid, child_end)?;
        }
        if rootfs.root.readonly {
            rootfs.root.make_readonly(&root)?;
        }
        rootfs.root.enter(&root)?;
        drop(root);
        if self.process.create_cwd {
            let made = create_working_directory(&self.process.cwd);
            made.at(Step::CreateWorkingDirectory)?;
        }
        become_the_process(&self.process, child_end)?;
        if self.start_socket.is_some() {
            // Who makes it hears what the one who starts it later could do nothing about.
            self.process.exec.find().at(Step::Exec)?;
        }
        channel::report_ready(child_end).at(Step::Report)?;
        match &self.start_socket {
            Some(socket) => later::await_start(socket, child_end).at(Step::AwaitStart),
            None => channel::await_command(child_end, Command::Start).at(Step::AwaitStart),
        }
    }
}

/// Child: puts the standard streams in place.
pub(crate) fn take_streams(stdio: &StdioPlan) -> Result<(), Failure> {
    stdio.apply().map_err(|(index, errno)| Failure {
        step: Step::Stdio,
        index: index as u32,
        errno,
    })
}

/// Child: by the host's /proc, in which it still is, and as whom the runtime is: the files there of who has become another
/// user are the host's root's (proc(5), PR_SET_DUMPABLE).
pub(crate) fn set_oom_score(process: &ProcessPlan) -> Result<(), Failure> {
    let Some(score) = &process.oom_score_adj else { return Ok(()) };
    proc_file::write(c"/proc/self/oom_score_adj", score).at(Step::OomScoreAdj)
}

/// Child: makes the process's terminal, hands its master out, and takes its slave.
pub(crate) fn take_terminal(
    terminal: &TerminalPlan,
    root: &OwnedFd,
    uid: libc::uid_t,
    child_end: RawFd,
) -> Result<(), Failure> {
    let (master, slave) = terminal.open(root.as_fd(), uid).at(Step::Terminal)?;
    channel::send_terminal(child_end, &master).at(Step::Report)?;
    terminal::take(&slave).at(Step::ControllingTerminal)
}

fn execute(
    process: &ProcessPlan,
    further: u32,
    trampoline: &Trampoline,
    channel: BorrowedFd,
) -> Result<Infallible, Failure> {
    process.exec.reset_signals().at(Step::Signals)?;
    exec::close_descriptors_on_exec(further).at(Step::CloseDescriptors)?;
    if let Some(filter) = process.seccomp.as_ref().filter(|filter| last(process, filter)) {
        filter.install().at(Step::Seccomp)?;
    }
    let errno = trampoline.execute(&process.exec, channel);
    // What is too long for it is what the program's own arguments and environment made too long.
    let step = if errno == Errno::E2BIG { Step::Exec } else { Step::Trampoline };
    Err(Failure { step, index: 0, errno })
}

/// Whether the filter is installed right before the program: the fewer of our own calls it has to let through. Without
/// no_new_privs it needs a capability that the process may not keep, and one with a listener has to be told of while
/// whoever makes the container is there.
fn last(process: &ProcessPlan, filter: &Filter) -> bool {
    process.no_new_privileges && filter.listener.is_none()
}

fn install(filter: &Filter, child_end: RawFd) -> Result<(), Failure> {
    match filter.install().at(Step::Seccomp)? {
        Some(notifications) => channel::send_listener(child_end, &notifications).at(Step::Report),
        None => Ok(()),
    }
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
        proc_file::write(path, value).at_index(Step::Sysctl, index)?;
    }
    plan.process.scheduling.apply()?;
    if let Some(label) = &plan.process.label {
        label.apply()?;
    }
    for (index, limit) in plan.process.rlimits.iter().enumerate() {
        limit.apply().at_index(Step::Rlimit, index)?;
    }
    Ok(())
}

/// Child: credentials and rights of the process, in the root that is already entered.
pub(crate) fn become_the_process(process: &ProcessPlan, child_end: RawFd) -> Result<(), Failure> {
    let early = process.seccomp.as_ref().filter(|filter| !last(process, filter));
    if let Some(filter) = early.filter(|_| !process.no_new_privileges) {
        install(filter, child_end)?;
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
    match early.filter(|_| process.no_new_privileges) {
        Some(filter) => install(filter, child_end),
        None => Ok(()),
    }
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
