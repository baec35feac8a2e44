//! `linux.seccomp`: from rules about system calls to a program for the kernel (seccomp(2)).
//!
//! Compiled before the clone, installed by the child. Written here because one program has to serve all three ways
//! into an x86-64 kernel, and the ready-made compiler (seccompiler) ends a process that enters by another than its
//! own, compares with no 64-bit mask, knows no notification, and looks for a call's number one by one. `names` knows
//! the numbers, `rules` decides what each is answered, `program` makes a search tree of that.

mod names;
pub(crate) mod notify;
mod program;
mod rules;

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use crate::error::{Error, Result};
use notify::Listener;
use rules::Rules;

/// A filter, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Vec<libc::sock_filter>,
    flags: libc::c_ulong,
    /// Who answers the calls of SCMP_ACT_NOTIFY.
    pub listener: Option<Listener>,
}

impl Filter {
    /// Entries by an architecture that is not listed end the process; the native one always is listed. Names that no
    /// architecture here knows are left out, as libseccomp's callers do: a profile is for many kernels.
    pub(crate) fn from_oci(seccomp: &LinuxSeccomp) -> Result<Self> {
        let rules = Rules::from_oci(seccomp)?;
        let listener = Listener::from_oci(seccomp)?;
        match (&listener, rules.notifies()) {
            (None, true) => {
                let problem = "SCMP_ACT_NOTIFY needs somebody who listens there";
                return Err(Error::invalid("linux.seccomp.listenerPath", problem));
            }
            // By which the descriptor of the notifications gets out: nobody could answer it.
            (Some(_), true) if rules.native_notifies("sendmsg") => {
                let problem = "SCMP_ACT_NOTIFY cannot be the answer to sendmsg";
                return Err(Error::unsupported("linux.seccomp.syscalls", problem));
            }
            _ => {}
        }
        // Without a call that it is for, the kernel would make one all the same.
        let listener = listener.filter(|_| rules.notifies());
        let flags = flags(seccomp, listener.is_some())?;
        let program = program::assemble(&rules);
        if program.len() > libc::BPF_MAXINSNS as usize {
            let problem = format!("{} instructions; the kernel takes 4096", program.len());
            return Err(Error::invalid("linux.seccomp.syscalls", problem));
        }
        Ok(Filter { program, flags, listener })
    }

    /// Child: installs the filter. Needs no_new_privs or CAP_SYS_ADMIN. Some: from which the notifications are read.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>, Errno> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.program.len()).map_err(|_| Errno::E2BIG)?,
            filter: self.program.as_ptr().cast_mut(),
        };
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel reads `len` instructions from the pointer, and changes none.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, mode, self.flags, &raw const program) };
        let descriptor = Errno::result(result)?;
        // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER the kernel returns a new descriptor, which nobody else owns.
        Ok(self.listener.is_some().then(|| unsafe { OwnedFd::from_raw_fd(descriptor as i32) }))
    }
}

fn flags(seccomp: &LinuxSeccomp, listener: bool) -> Result<libc::c_ulong> {
    use LinuxSeccompFilterFlag as Flag;
    let mut all = if listener { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    for flag in seccomp.flags().iter().flatten() {
        all |= match flag {
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // With a listener the kernel wants to tell of a failure by ESRCH, as a number would be a descriptor.
            Flag::SeccompFilterFlagTsync if listener => {
                libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH
            }
            Flag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            Flag::SeccompFilterFlagWaitKillableRecv if listener => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            }
            Flag::SeccompFilterFlagWaitKillableRecv => {
                let problem =
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for filters with SCMP_ACT_NOTIFY";
                return Err(Error::invalid("linux.seccomp.flags", problem));
            }
        };
    }
    Ok(all)
}
