//! Programs that see an image's files as one tree: its layers, merged by the kernel's own overlayfs in a mount
//! namespace that nobody else sees.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, geteuid};

/// Where the files are, from the program's working directory.
pub const MERGED: &str = "merged";

/// Runs `command` to its end, with what it writes, in a folder where the files of `layers`, topmost first, are in
/// [`MERGED`], read-only. Without root the program sees them all as root's.
///
/// # Errors
/// The layers cannot be mounted, or the program cannot be started.
pub fn run_with_merged(layers: &[PathBuf], command: &mut Command) -> io::Result<Output> {
    let work = crate::private::temporary().map_err(io::Error::other)?;
    let lower = link_layers(work.path(), layers)?;
    let plan = MountPlan::new(work.path(), &lower, geteuid().is_root())?;
    // SAFETY: between fork and exec the closure makes system calls on memory that was prepared
    // before, and allocates nothing (the paths are C strings), as signal-safety(7) demands.
    unsafe { command.pre_exec(move || plan.enter().map_err(io::Error::from)) };
    command.output()
}

/// Short names for the layers: mount(2) takes a page of options, which long paths would soon
/// fill. The last layer is empty, as overlayfs wants two at least.
fn link_layers(work: &Path, layers: &[PathBuf]) -> io::Result<String> {
    for folder in [MERGED, "empty", "bottom"] {
        fs::create_dir(work.join(folder))?;
    }
    let mut lower = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = number.to_string();
        symlink(std::path::absolute(layer)?, work.join(&name))?;
        lower.push(name);
    }
    lower.push("empty".to_owned());
    if layers.is_empty() {
        lower.push("bottom".to_owned());
    }
    Ok(lower.join(":"))
}

/// Mounting the merged layers on `merged` in the folder `work`, in a namespace of its own.
struct MountPlan {
    work: CString,
    options: CString,
    namespaces: CloneFlags,
}

impl MountPlan {
    fn new(work: &Path, lower: &str, is_root: bool) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        // Without root, overlayfs looks for its own signs in user.* (overlayfs.rst).
        let more = if is_root { "" } else { ",userxattr" };
        let user = if is_root { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
        Ok(Self {
            work: CString::new(work.as_os_str().as_bytes())?,
            options: CString::new(format!("lowerdir={lower}{more}"))?,
            namespaces: CloneFlags::CLONE_NEWNS | user,
        })
    }

    fn enter(&self) -> Result<(), Errno> {
        unshare(self.namespaces)?;
        let none = None::<&CStr>;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        chdir(self.work.as_c_str())?;
        let (kind, options) = (Some(c"overlay"), Some(self.options.as_c_str()));
        mount(kind, c"merged", kind, MsFlags::MS_RDONLY, options)
    }
}
