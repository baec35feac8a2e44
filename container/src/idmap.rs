//! User and group id maps of a user namespace: written directly where that is allowed, otherwise by newuidmap(1) and
//! newgidmap(1), which may give an unprivileged user the ranges of /etc/subuid and /etc/subgid.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{Pid, getegid, geteuid};
use oci_spec::runtime::LinuxIdMapping;

use crate::clone::{Cloned, Parent, clone};
use crate::error::{Error, Result};
use crate::pidfd;

/// The maps of one user namespace.
#[derive(Debug)]
pub(crate) struct IdMaps {
    uid: Map,
    gid: Map,
}

/// One map, and who writes it.
#[derive(Debug)]
struct Map {
    file: &'static str,
    mappings: Vec<LinuxIdMapping>,
    /// None: we do.
    helper: Option<&'static str>,
    /// The caller may map itself alone, and only with setgroups denied (user_namespaces(7)).
    itself_alone: bool,
}

impl IdMaps {
    pub(crate) fn new(uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Result<Self> {
        if uid.is_empty() || gid.is_empty() {
            let problem = "a new user namespace needs linux.uidMappings and linux.gidMappings";
            return Err(Error::invalid("linux.uidMappings", problem));
        }
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let uid = Map::new("uid_map", "newuidmap", uid, user);
        Ok(IdMaps { uid, gid: Map::new("gid_map", "newgidmap", gid, group) })
    }

    pub(crate) fn denies_setgroups(&self) -> bool {
        self.gid.itself_alone
    }

    /// A user namespace with these maps, and with it `others`, which belong to it; nobody is in them. `names`: those of
    /// /proc/PID/ns that are wanted.
    pub(crate) fn namespaces<const COUNT: usize>(
        &self,
        others: CloneFlags,
        names: [&str; COUNT],
    ) -> Result<[OwnedFd; COUNT]> {
        let attempt = "clone a process into a user namespace that is to be kept";
        // SAFETY: the clone sleeps until it is killed, and makes system calls only.
        let cloned = unsafe { clone(CloneFlags::CLONE_NEWUSER | others, None, Parent::Caller) };
        let Some(Cloned { pid, pidfd }) = cloned.map_err(|errno| Error::host(attempt, errno))?
        else {
            loop {
                // SAFETY: takes nothing. All signals are blocked but SIGKILL, which also the kernel sends it when the
                // thread that waits for it ends.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            }
        };
        let open = |name: &str| {
            let path = format!("/proc/{pid}/ns/{name}");
            let opened = File::open(&path).map(OwnedFd::from);
            opened.map_err(|source| Error::host(format!("open {path}"), source))
        };
        let opened = self.write(pid);
        let opened =
            opened.and_then(|()| names.iter().map(|name| open(name)).collect::<Result<Vec<_>>>());
        // Of our own child there is nothing else to learn.
        let _ = pidfd::send(&pidfd, libc::SIGKILL);
        let _ = pidfd::reap(pidfd.as_fd(), WaitPidFlag::WEXITED);
        // As many as there are names.
        opened?.try_into().map_err(|_| Error::host(attempt, Errno::EPROTO))
    }

    /// Writes the maps of a process that waits in its new user namespace.
    pub(crate) fn write(&self, pid: Pid) -> Result<()> {
        if self.denies_setgroups() {
            write(pid, "setgroups", "deny")?;
        }
        self.uid.write(pid)?;
        self.gid.write(pid)
    }
}

impl Map {
    fn new(
        file: &'static str,
        helper: &'static str,
        mappings: &[LinuxIdMapping],
        own: u32,
    ) -> Self {
        let unprivileged = !geteuid().is_root();
        let itself = matches!(mappings, [map] if map.host_id() == own && map.size() == 1);
        let itself_alone = unprivileged && itself;
        let helper = (unprivileged && !itself).then_some(helper);
        Map { file, mappings: mappings.to_vec(), helper, itself_alone }
    }

    fn write(&self, pid: Pid) -> Result<()> {
        let numbers = |map: &LinuxIdMapping| {
            [map.container_id(), map.host_id(), map.size()].map(|number| number.to_string())
        };
        let Some(helper) = self.helper else {
            let lines = self.mappings.iter().map(|map| numbers(map).join(" ") + "\n");
            return write(pid, self.file, &lines.collect::<String>());
        };
        let mut command = Command::new(helper);
        command.arg(pid.to_string()).args(self.mappings.iter().flat_map(numbers));
        let attempt = || format!("write {} of process {pid} by {helper}", self.file);
        let output = command.output().map_err(|source| Error::host(attempt(), source))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let field = if self.file == "uid_map" { "linux.uidMappings" } else { "linux.gidMappings" };
        let hint =
            "an unprivileged caller may map itself, and its ranges of /etc/subuid and /etc/subgid";
        Err(Error::invalid(field, format!("{helper} refuses ({hint}): {said}")))
    }
}

fn write(pid: Pid, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, text)
        .map_err(|source| Error::host(format!("write {text:?} to {path}"), source))
}
