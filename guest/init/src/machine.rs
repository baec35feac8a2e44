//! What a Linux system needs before a process can run in it.

use std::arch::asm;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use isolab_protocol::{KernelSettings, MARKER_PORT, Marker};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

use crate::Failure;

/// Tells the VMM that a milestone is reached. Silent where the kernel has no ioperm: a milestone
/// is a measurement, never a condition.
pub fn mark(marker: Marker) {
    // SAFETY: ioperm takes numbers only and affects nothing but this thread's port permissions.
    if unsafe { libc::ioperm(MARKER_PORT.into(), 1, 1) } != 0 {
        return;
    }
    // SAFETY: the port was just granted to us, and a write to the POST port has no effect on
    // memory or on the machine's devices.
    unsafe {
        asm!("out dx, al", in("dx") MARKER_PORT, in("al") marker as u8,
             options(nomem, nostack, preserves_flags));
    }
}

struct Mount {
    filesystem: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: Option<&'static str>,
}

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

const SHM: &str = "/dev/shm";

/// The file systems that the OCI runtime specification wants in every Linux container.
const API_FILESYSTEMS: [Mount; 7] = [
    Mount { filesystem: "proc", target: "/proc", flags: SAFE, data: None },
    Mount { filesystem: "sysfs", target: "/sys", flags: SAFE, data: None },
    Mount {
        filesystem: "devtmpfs",
        target: "/dev",
        flags: MsFlags::MS_NOSUID,
        data: Some("mode=755"),
    },
    Mount {
        filesystem: "devpts",
        target: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        data: Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    },
    Mount { filesystem: "tmpfs", target: SHM, flags: SAFE, data: Some("mode=1777") },
    Mount { filesystem: "mqueue", target: "/dev/mqueue", flags: SAFE, data: None },
    Mount { filesystem: "cgroup2", target: "/sys/fs/cgroup", flags: SAFE, data: None },
];

/// Mounts /dev in the initramfs, where the disks will be. The kernel may have done so.
pub fn mount_devices() -> Result<(), Failure> {
    fs::create_dir_all("/dev").map_err(|e| format!("create /dev: {e}"))?;
    match mount(Some("devtmpfs"), "/dev", Some("devtmpfs"), MsFlags::MS_NOSUID, None::<&str>) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(format!("mount devtmpfs on /dev: {error}")),
    }
}

/// Mounts /proc, /sys, /dev and what belongs below them, and makes the usual links in /dev.
pub fn mount_api_filesystems(settings: &KernelSettings) -> Result<(), Failure> {
    let shm_options = settings.shm_size.map(|size| format!("mode=1777,size={size}"));
    for Mount { filesystem, target, flags, data } in API_FILESYSTEMS {
        // /sys/fs/cgroup exists where the kernel has cgroups; everything else can be made.
        if !Path::new(target).is_dir() && fs::create_dir_all(target).is_err() {
            continue;
        }
        let data = match &shm_options {
            Some(options) if target == SHM => Some(options.as_str()),
            _ => data,
        };
        match mount(Some(filesystem), target, Some(filesystem), flags, data) {
            // devtmpfs may be mounted by the kernel; others may be left out of a slim kernel.
            Ok(()) | Err(Errno::EBUSY | Errno::ENODEV) => {}
            Err(error) => return Err(format!("mount {filesystem} on {target}: {error}")),
        }
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        match symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("link {link}: {error}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Loads one kernel module. One that is loaded or built in already is fine.
pub fn load_module(path: &Path) -> Result<(), Failure> {
    let file = File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(format!("load module {}: {error}", path.display())),
    }
}

/// Writes the settings of the kernel that are asked for, once the network interfaces are there that they may name.
pub fn set_sysctls(settings: &KernelSettings) -> Result<(), Failure> {
    for (name, value) in &settings.sysctls {
        let path = format!("/proc/sys/{name}");
        fs::write(&path, value).map_err(|e| format!("write {value:?} to {path}: {e}"))?;
    }
    Ok(())
}

/// Gives the machine its host name.
pub fn set_hostname(name: &str) -> Result<(), Failure> {
    nix::unistd::sethostname(name).map_err(|e| format!("set the host name to {name}: {e}"))
}
