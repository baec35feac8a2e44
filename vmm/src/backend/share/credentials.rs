//! Whose files are: what the guest's user and group ids are on the host.
//!
//! The guest's kernel judges who may do what (its mount has `default_permissions`), so the host is
//! asked as who runs the machine. What is made anew is made as the guest's user, by setfsuid(2),
//! which holds for the calling thread alone; so does everything else here.

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

/// What the kernel shows for ids that have no name in a user namespace (`overflowuid`).
const NOBODY: u32 = 65534;
/// chown(2): as it was.
const UNCHANGED: u32 = u32::MAX;

const CAP_DAC_OVERRIDE: u32 = 1 << 1;

/// How the ids of guest and host correspond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// They are the same, for who may give files away: root.
    Same,
    /// This user and group of the host are root in the guest, and there is nobody else: a user
    /// cannot make files of others. The same as in a user namespace with a single id.
    Only {
        /// On the host.
        uid: u32,
        /// On the host.
        gid: u32,
    },
}

impl Ids {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        match geteuid() {
            root if root.is_root() => Self::Same,
            uid => Self::Only { uid: uid.as_raw(), gid: getegid().as_raw() },
        }
    }

    /// A file's owner and group, as the guest sees them.
    pub fn to_guest(self, owner: u32, group: u32) -> (u32, u32) {
        match self {
            Self::Same => (owner, group),
            Self::Only { uid, gid } => {
                let shown = |is_ours| if is_ours { 0 } else { NOBODY };
                (shown(owner == uid), shown(group == gid))
            }
        }
    }

    /// The owner and group that the guest wants a file to have; `None` stays as it is.
    ///
    /// # Errors
    /// EPERM: there is no such id.
    pub fn to_host(
        self,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<(Option<Uid>, Option<Gid>), Errno> {
        // The guest's kernel has no process with this id either.
        if owner == Some(UNCHANGED) || group == Some(UNCHANGED) {
            return Err(Errno::EINVAL);
        }
        match self {
            Self::Same => Ok((owner.map(Uid::from_raw), group.map(Gid::from_raw))),
            Self::Only { uid, gid } => {
                let ours = |wanted, ours| match wanted {
                    None => Ok(None),
                    Some(0) => Ok(Some(ours)),
                    Some(_) => Err(Errno::EPERM),
                };
                Ok((ours(owner, uid)?.map(Uid::from_raw), ours(group, gid)?.map(Gid::from_raw)))
            }
        }
    }

    /// Makes what the calling thread creates that user's, until the guard goes.
    ///
    /// # Errors
    /// EPERM: there is no such id, or the host refuses it.
    pub fn act_as(self, owner: u32, group: u32) -> Result<Acting, Errno> {
        let (Some(uid), Some(gid)) = self.to_host(Some(owner), Some(group))? else {
            return Err(Errno::EPERM);
        };
        let before = (setfsuid_now(), setfsgid_now());
        if before == (uid, gid) {
            return Ok(Acting(None));
        }
        let acting = Acting(Some(before));
        // The group first, which takes a capability that goes with the user.
        setfsgid(gid);
        setfsuid(uid);
        if (setfsuid_now(), setfsgid_now()) != (uid, gid) {
            return Err(Errno::EPERM);
        }
        if before.0.is_root() && !uid.is_root() {
            // The guest's kernel knows the supplementary groups of its process and has judged;
            // here they are unknown, and the host must not judge by less.
            keep_access()?;
        }
        Ok(acting)
    }
}

/// Undoes [`Ids::act_as`].
#[derive(Debug)]
pub struct Acting(Option<(Uid, Gid)>);

impl Drop for Acting {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.0 {
            // For root this brings the capabilities back too.
            setfsuid(uid);
            setfsgid(gid);
        }
    }
}

/// setfsuid(2) tells the id before, and -1 is none to change to.
fn setfsuid_now() -> Uid {
    setfsuid(Uid::from_raw(u32::MAX))
}

fn setfsgid_now() -> Gid {
    setfsgid(Gid::from_raw(u32::MAX))
}

/// Has CAP_DAC_OVERRIDE in effect again, which went with root's file system id (capabilities(7)),
/// where it is permitted at all. CAP_FSETID and the others stay away: a file's set-group-ID bit goes as
/// it does for any user.
fn keep_access() -> Result<(), Errno> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: version 3 writes the header and two structures of capabilities (capget(2)), which
    // live and are this thread's.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(got)?;
    let wanted = sets[0].permitted & CAP_DAC_OVERRIDE;
    if wanted == 0 {
        return Ok(());
    }
    sets[0].effective |= wanted;
    // SAFETY: as above; they are only read.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(set).map(drop)
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Prepares the calling thread for a share's work: no umask of ours (the guest's kernel has applied
/// its process's), and no signal, among them SIGXFSZ, which would end this process where a file
/// reaches RLIMIT_FSIZE and now leaves the guest an EFBIG.
///
/// # Errors
/// The host refuses a thread its own umask, as a seccomp filter may; files then have fewer permissions
/// than the guest gave them.
pub fn prepare_thread() -> Result<(), Errno> {
    SigSet::all().thread_block()?;
    unshare(CloneFlags::CLONE_FS)?;
    umask(Mode::empty());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_s_guests_have_the_host_s_ids() {
        assert_eq!(Ids::Same.to_guest(7, 8), (7, 8));
        let ids = Ids::Same.to_host(Some(7), None);
        assert_eq!(ids, Ok((Some(Uid::from_raw(7)), None)));
        assert_eq!(Ids::Same.to_host(Some(u32::MAX), None), Err(Errno::EINVAL));
    }

    #[test]
    fn a_user_s_guests_have_one_id() {
        let ids = Ids::Only { uid: 1000, gid: 100 };
        assert_eq!(ids.to_guest(1000, 100), (0, 0));
        // Root's files of the host are not those of the guest's root.
        assert_eq!(ids.to_guest(0, 0), (NOBODY, NOBODY));
        let ours = (Some(Uid::from_raw(1000)), Some(Gid::from_raw(100)));
        assert_eq!(ids.to_host(Some(0), Some(0)), Ok(ours));
        for other in [1, 100, 1000, NOBODY] {
            assert_eq!(ids.to_host(Some(other), None), Err(Errno::EPERM));
            assert_eq!(ids.act_as(other, 0).unwrap_err(), Errno::EPERM);
        }
    }
}
