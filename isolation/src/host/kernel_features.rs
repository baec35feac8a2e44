//! Namespaces, overlayfs and tun, each tried in a child process that ends at once.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir, fork, getegid, geteuid, write};

use super::Fact;

/// Whether each kind of namespace can be made. Without root, inside a new user namespace.
pub(super) fn namespaces() -> Vec<Fact> {
    let kinds = [
        ("mount", CloneFlags::CLONE_NEWNS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("user", CloneFlags::CLONE_NEWUSER),
    ];
    let try_kind = |(name, flag)| {
        let result = in_child(|| unshare(with_user_namespace(flag)));
        let result = result.map(|()| "can be made".to_owned()).map_err(|e| format!("unshare: {e}"));
        Fact::new(format!("namespace {name}"), result)
    };
    kinds.into_iter().map(try_kind).collect()
}

fn with_user_namespace(flags: CloneFlags) -> CloneFlags {
    if geteuid().is_root() { flags } else { flags | CloneFlags::CLONE_NEWUSER }
}

/// Whether an overlay that takes writes can be mounted in `folder`: its file system has to be fit for it.
pub(super) fn overlayfs(folder: &Path) -> Fact {
    let dir = folder.join("overlay");
    let attempt = || -> Result<(), String> {
        let path = |name: &str| dir.join(name);
        for name in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir_all(path(name)).map_err(|e| format!("create {name}: {e}"))?;
        }
        // Relative, as a path may contain the separators of options. In a user namespace, overlayfs's
        // own attributes are the user's.
        let is_root = geteuid().is_root();
        let attributes = if is_root { "" } else { ",userxattr" };
        let options = format!("lowerdir=lower,upperdir=upper,workdir=work{attributes}");
        // Root there is us here (user_namespaces(7)).
        let maps = [
            (c"/proc/self/setgroups", "deny".to_owned()),
            (c"/proc/self/uid_map", format!("0 {} 1", geteuid())),
            (c"/proc/self/gid_map", format!("0 {} 1", getegid())),
        ];
        let c_string = |bytes: &[u8]| CString::new(bytes).map_err(|e| e.to_string());
        let options = c_string(options.as_bytes())?;
        let place = c_string(dir.as_os_str().as_bytes())?;
        in_child(|| {
            chdir(place.as_c_str())?;
            unshare(with_user_namespace(CloneFlags::CLONE_NEWNS))?;
            for (file, text) in maps.iter().filter(|_| !is_root) {
                let file = open(*file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
                write(&file, text.as_bytes())?;
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, c"/", None::<&str>, private, None::<&str>)?;
            let data = Some(options.as_c_str());
            mount(Some(c"overlay"), c"merged", Some(c"overlay"), MsFlags::empty(), data)
        })
        .map_err(|e| format!("mount overlay in {}: {e}", folder.display()))
    };
    Fact::new("overlayfs", attempt().map(|()| "mounts".to_owned()))
}

/// Whether tap devices can be made.
pub(super) fn tun() -> Fact {
    let attempt = || -> io::Result<()> {
        let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let mut features: libc::c_uint = 0;
        // SAFETY: TUNGETFEATURES writes one unsigned int, and `features` is one.
        Errno::result(unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETFEATURES, &mut features) })?;
        Ok(())
    };
    let result = attempt().map(|()| "opens".to_owned()).map_err(|e| e.to_string());
    Fact::new("/dev/net/tun", result)
}

/// `_IOR('T', 207, unsigned int)`, linux/if_tun.h.
const TUNGETFEATURES: libc::c_ulong = 0x8004_54cf;

/// Runs `attempt` in a child, so that what it changes ends with the child.
fn in_child(attempt: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    // SAFETY: the child makes system calls on data prepared before the fork and leaves by _exit,
    // so a lock that another thread holds at the fork cannot matter.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = attempt().err().unwrap_or(Errno::UnknownErrno) as i32;
            // SAFETY: _exit only ends the process.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code) => Err(Errno::from_raw(code)),
            _ => Err(Errno::EINTR),
        },
    }
}
