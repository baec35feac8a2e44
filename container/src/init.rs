//! What runs inside, between clone and execve: the whole life of the child on one page.
//!
//! Every function called from here is marked "Child:" in its documentation: system calls and prepared memory only, no
//! allocation, no locks (see `clone`). Errors are numbers, told in words by the runtime.

use crate::channel::{self, Command};
use crate::descriptors;
use crate::namespaces;
use crate::plan::{CgroupLayout, CgroupMountPlan, Plan};
use crate::process::trampoline::Trampoline;
use crate::process::{credentials, exec, keyring};
use crate::rootfs::resolve::{DescriptorPath, InnerPath, Target};
use crate::rootfs::{devices, mask, mounts};
use crate::step::{At, Failure, Step};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use std::convert::Infallible;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// Child: carries out the plan and executes the trampoline, or reports what failed and exits with the code that
/// [`crate::Error::exit_code`] gives. `keep`: the descriptors to keep, ascending.
pub(crate) fn run(plan: &Plan, trampoline: &Trampoline, channel: BorrowedFd, keep: &[RawFd]) -> ! {
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

fn set_up(plan: &Plan, child_end: RawFd, keep: &[RawFd]) -> Result<(), Failure> {
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
    let root = plan.root.mount()?;
    let mut cgroup = CgroupEntry { plan, child_end, entered: false };
    fill_root(plan, root.as_fd(), &mut cgroup)?;
    cgroup.enter()?;
    set_host_files(plan)?;
    if plan.root.readonly {
        plan.root.make_readonly(&root)?;
    }
    plan.root.enter(&root)?;
    drop(root);
    become_the_process(plan)?;
    channel::report_ready(child_end).at(Step::Report)?;
    channel::await_command(child_end, Command::Start).at(Step::AwaitStart)
}

fn execute(
    plan: &Plan,
    trampoline: &Trampoline,
    channel: BorrowedFd,
) -> Result<Infallible, Failure> {
    exec::reset_signals()?;
    exec::close_descriptors_on_exec().at(Step::CloseDescriptors)?;
    if let Some(filter) = plan.process.seccomp.as_ref().filter(|_| plan.process.no_new_privileges) {
        filter.install().at(Step::Seccomp)?;
    }
    let errno = trampoline.execute(&plan.process.exec, channel);
    // What is too long for it is what the program's own arguments and environment made too long.
    let step = if errno == Errno::E2BIG { Step::Exec } else { Step::Trampoline };
    Err(Failure { step, index: 0, errno })
}

fn name_the_host(plan: &Plan) -> Result<(), Failure> {
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

fn fill_root(plan: &Plan, root: BorrowedFd, cgroup: &mut CgroupEntry) -> Result<(), Failure> {
    for (index, one) in plan.mounts.iter().enumerate() {
        if !one.is_cgroup() {
            one.mount(root, index)?;
        } else if let Some(cgroup_mount) = &plan.cgroup_mount {
            // Shows the container's own cgroup as the top only from within its cgroup namespace.
            cgroup.enter()?;
            mount_cgroups(cgroup_mount, root)?;
        }
    }
    for (index, device) in plan.devices.iter().enumerate() {
        device
            .create(root, plan.user_namespace, plan.root.mount_point())
            .at_index(Step::Device, index)?;
    }
    if plan.device_links {
        devices::create_links(root)?;
    }
    if !plan.masked.is_empty() {
        let null = mask::open_null().at(Step::MaskPath)?;
        for (index, path) in plan.masked.iter().enumerate() {
            mask::mask(path, root, &null).at_index(Step::MaskPath, index)?;
        }
    }
    for (index, path) in plan.readonly.iter().enumerate() {
        mask::make_readonly(path, root).at_index(Step::ReadonlyPath, index)?;
    }
    Ok(())
}

/// Waits, once, until the runtime has moved this process into its cgroups, and makes the cgroup namespace.
struct CgroupEntry<'a> {
    plan: &'a Plan,
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

fn mount_cgroups(plan: &CgroupMountPlan, root: BorrowedFd) -> Result<(), Failure> {
    let open = |path: &InnerPath| path.open_or_create(root, Target::Directory);
    let on = |target: &OwnedFd, fstype: &CStr, flags: MsFlags, data: Option<&CStr>| {
        mount(Some(fstype), DescriptorPath::new(target).as_c_str(), Some(fstype), flags, data)
    };
    let top = open(&plan.target).at(Step::CgroupMount)?;
    let hierarchies = match &plan.layout {
        CgroupLayout::V2 => return on(&top, c"cgroup2", plan.flags, None).at(Step::CgroupMount),
        CgroupLayout::V1(hierarchies) => hierarchies,
    };
    let writable = plan.flags - MsFlags::MS_RDONLY;
    on(&top, c"tmpfs", writable, Some(c"mode=755,size=64k")).at(Step::CgroupMount)?;
    for (index, hierarchy) in hierarchies.iter().enumerate() {
        let target = open(&hierarchy.target).at_index(Step::CgroupMount, index)?;
        let mounted = match &hierarchy.data {
            Some(controllers) => on(&target, c"cgroup", plan.flags, Some(controllers)),
            None => on(&target, c"cgroup2", plan.flags, None),
        };
        mounted.at_index(Step::CgroupMount, index)?;
    }
    if plan.flags.contains(MsFlags::MS_RDONLY) {
        let mounted = plan.target.open(root).at(Step::CgroupMount)?;
        mounts::remount_bind(&mounted, MsFlags::MS_RDONLY).at(Step::CgroupMount)?;
    }
    Ok(())
}

/// What is set through the host's /proc, as long as it is in sight.
fn set_host_files(plan: &Plan) -> Result<(), Failure> {
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

fn become_the_process(plan: &Plan) -> Result<(), Failure> {
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
