//! The file system of a volume that is a disk.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::VolumeError;

const MAKE: &str = "mke2fs";
const EDIT: &str = "debugfs";
/// ext4's superblock, and its volume's UUID in it (ext4: "The Super Block", `s_uuid`).
const UUID_AT: u64 = 1024 + 0x68;
/// Without `-m0` a twentieth would be root's alone. The journal stays: what a machine has synced is there after its
/// end, however it ended.
const OPTIONS: [&str; 7] = ["-q", "-F", "-t", "ext4", "-m0", "-E", "nodiscard"];

/// The limits that mke2fs works in with its defaults, in bytes.
const SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=16 << 40;

pub(crate) fn check_size(size: u64) -> Result<(), VolumeError> {
    if SIZES.contains(&size) { Ok(()) } else { Err(VolumeError::Size(size)) }
}

/// The top folder of a file system, as stat(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopFolder {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
}

/// Makes `disk`, sparse, of `size` bytes. `run` runs the command, to which it adds the disk and before it `-d` and a
/// folder that is to be in the file system, if there is one; and says what the top folder is to be.
pub(crate) fn make(
    disk: &Path,
    size: u64,
    run: impl FnOnce(&mut Command, &Path) -> io::Result<(Output, TopFolder)>,
) -> Result<(), VolumeError> {
    check_size(size)?;
    let io = || VolumeError::io("write", disk);
    File::create(disk).and_then(|file| file.set_len(size)).map_err(io())?;
    let mut command = Command::new(MAKE);
    command.args(OPTIONS).stdin(Stdio::null());
    let (output, top) = run(&mut command, disk).map_err(|error| failed(MAKE, &error))?;
    check(MAKE, &output)?;
    // As a volume is that is a folder: mke2fs would have it root's, and a database refuses a folder that is not empty.
    let TopFolder { uid, gid, mode } = top;
    let change = format!(
        "set_inode_field / uid {uid}\nset_inode_field / gid {gid}\nset_inode_field / mode 04{mode:04o}\nrmdir lost+found\n"
    );
    let mut editor = Command::new(EDIT);
    editor.args(["-w", "-f", "-"]).arg(disk).stdin(Stdio::piped());
    editor.stdout(Stdio::piped()).stderr(Stdio::piped());
    let edited = editor.spawn().and_then(|mut child| {
        // Dropped at once, which ends its input.
        child.stdin.take().map_or(Ok(()), |mut input| input.write_all(change.as_bytes()))?;
        child.wait_with_output()
    });
    check(EDIT, &edited.map_err(|error| failed(EDIT, &error))?)?;
    File::open(disk).and_then(|file| file.sync_all()).map_err(io())
}

fn failed(tool: &'static str, why: &dyn fmt::Display) -> VolumeError {
    VolumeError::Tool { tool, package: "e2fsprogs", why: why.to_string() }
}

fn check(tool: &'static str, output: &Output) -> Result<(), VolumeError> {
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(tool, &String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// By which a guest finds the disk among others. Its user may have changed it, which is his own affair.
pub(crate) fn uuid(disk: &Path) -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    File::open(disk)?.read_exact_at(&mut uuid, UUID_AT)?;
    Ok(uuid)
}

/// Moves the finished `new` to its place.
pub(crate) fn appear(new: &Path, disk: &Path) -> Result<(), VolumeError> {
    fs::rename(new, disk).map_err(VolumeError::io("rename", new))
}
