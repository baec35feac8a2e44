//! A process's capabilities, resource limits and the like, in the order in which the kernel lets them be set.
//!
//! All of it happens between fork and exec: system calls only, on data that is there already.

use std::ffi::CString;
use std::io;

use isolab_protocol::{CapabilitySets, Rights, Rlimit};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::write;

/// [`Rights`], ready for a child that must not allocate.
pub struct RightsPlan {
    rights: Rights,
    oom_score_adj: Option<CString>,
}

impl RightsPlan {
    pub fn new(rights: &Rights) -> Self {
        // Digits and a sign contain no NUL.
        let score = rights.oom_score_adj.and_then(|score| CString::new(score.to_string()).ok());
        Self { rights: rights.clone(), oom_score_adj: score }
    }

    /// What takes root's rights, before the user changes.
    pub fn apply_as_root(&self) -> io::Result<()> {
        if let Some(score) = &self.oom_score_adj {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
            write(&file, score.to_bytes())?;
        }
        for Rlimit { resource, soft, hard } in &self.rights.rlimits {
            let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
            // SAFETY: setrlimit reads the limit, which lives until the call is over; a resource that
            // does not exist is refused.
            Errno::result(unsafe { libc::setrlimit(*resource, &raw const limit) })?;
        }
        if let Some(sets) = &self.rights.capabilities {
            limit_bounding_set(sets.bounding)?;
            prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
        }
        Ok(())
    }

    /// What holds from the user on.
    pub fn apply_as_user(&self) -> io::Result<()> {
        if let Some(sets) = &self.rights.capabilities {
            set_capabilities(sets)?;
        }
        if self.rights.no_new_privileges {
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        }
        Ok(())
    }
}

fn limit_bounding_set(bounding: u64) -> io::Result<()> {
    for number in (0..64).filter(|number| bounding & (1 << number) == 0) {
        match prctl(libc::PR_CAPBSET_DROP, number, 0) {
            // Beyond the last one that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities in two words.
const VERSION_3: u32 = 0x2008_0522;

fn set_capabilities(sets: &CapabilitySets) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let word = |set: u64, shift: u32| (set >> shift) as u32;
    // Effective, permitted, inheritable: capability.h's `__user_cap_data_struct`, twice.
    let data: [[u32; 3]; 2] = [0, 32].map(|shift| {
        let permitted = word(sets.permitted | sets.ambient, shift);
        [permitted, permitted, word(sets.ambient, shift)]
    });
    // SAFETY: version 3 reads one header and two triples of words; both outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    for number in (0..64).filter(|number| sets.ambient & (1 << number) != 0) {
        match prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, number) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

fn prctl(option: i32, second: u64, third: u64) -> io::Result<()> {
    // SAFETY: the options used here take integers only.
    Errno::result(unsafe { libc::prctl(option, second, third, 0u64, 0u64) })?;
    Ok(())
}
