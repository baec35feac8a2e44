//! The root file system: the image's disk, with a scratch disk over it for what is written.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use isolab_protocol::{NameFile, RootDisks};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use crate::Failure;

/// How long the disks may take to appear: drivers find them in their own time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Read-ahead of the disks, in KiB, as sysfs takes it.
const READ_AHEAD: &str = "512";
const MOUNT_POINT: &str = "/root";
/// The lowest layer: empty files for [`cover_names`] to cover where the image has none.
const LOWEST: &str = "/lowest";

/// Options of ext4 for a file system that ends with its guest (ext4(5)), the best first. The host
/// forgets the disk, so that no write has to reach a medium; the thread that would write the
/// inode tables, which are zero already, and read the bitmaps ahead (Linux 5.13 and newer) would take
/// the processor from the workload's start; and there are no inodes to read ahead of the first.
const PASSING_OPTIONS: [&str; 2] = [
    "nobarrier,noinit_itable,inode_readahead_blks=0,no_prefetch_block_bitmaps",
    "nobarrier,noinit_itable,inode_readahead_blks=0",
];

/// Likewise for one that a later guest has again.
const LASTING_OPTIONS: [&str; 2] = ["noinit_itable,no_prefetch_block_bitmaps", "noinit_itable"];

/// Made by overlayfs when it is first mounted.
const USED: &str = "/scratch/work/work";

/// Makes the disks the root directory of everything that follows. Nothing but /dev may be mounted
/// before. Returns the device that has the image.
pub fn enter(disks: &RootDisks, names: &[NameFile]) -> Result<String, Failure> {
    for folder in ["/image", "/scratch", MOUNT_POINT] {
        fs::create_dir_all(folder).map_err(|e| format!("create {folder}: {e}"))?;
    }
    let image = mount_one(&disks.devices, &disks.image, "/image", MsFlags::MS_RDONLY, &[""])?;
    let others: Vec<String> =
        disks.devices.iter().filter(|device| **device != image).cloned().collect();
    let options = if disks.scratch_lasts { &LASTING_OPTIONS } else { &PASSING_OPTIONS };
    mount_one(&others, &disks.scratch, "/scratch", MsFlags::MS_NOATIME, options)?;
    // Later it has what the workload made of it.
    if !Path::new(USED).exists() {
        give_root("/image", "/scratch/upper")
            .map_err(|e| format!("give the root folder its owner and mode: {e}"))?;
    }
    let etc = format!("{LOWEST}/etc");
    fs::create_dir_all(&etc).map_err(|e| format!("create {etc}: {e}"))?;
    for NameFile { name, .. } in names {
        fs::write(format!("{etc}/{name}"), "").map_err(|e| format!("write {etc}/{name}: {e}"))?;
    }
    let layers = "lowerdir=/image:/lowest,upperdir=/scratch/upper,workdir=/scratch/work";
    mount(Some("overlay"), MOUNT_POINT, Some("overlay"), MsFlags::empty(), Some(layers))
        .map_err(|e| format!("mount overlay: {e}"))?;
    cover_names(names)?;
    switch_to(MOUNT_POINT).map_err(|e| format!("switch to the root file system: {e}"))?;
    Ok(image)
}

/// Has more of the image read at once than Linux does by default: a program's pages come in as it
/// touches them, and a request costs an exit and an interrupt, however long it is. Needs /sys.
pub fn read_ahead(image: &str) {
    let name = image.trim_start_matches("/dev/");
    // A kernel that has no such setting is merely slower.
    let _ = fs::write(format!("/sys/block/{name}/queue/read_ahead_kb"), READ_AHEAD);
}

/// Mounts the instance's own files over the image's. Where the image has a link or a folder, it has
/// its own idea of names, which is left alone.
fn cover_names(names: &[NameFile]) -> Result<(), Failure> {
    let etc = format!("{MOUNT_POINT}/etc");
    if !fs::symlink_metadata(&etc).is_ok_and(|etc| etc.is_dir()) {
        return Ok(());
    }
    for NameFile { name, content } in names {
        let (own, place) = (format!("/{name}"), format!("{etc}/{name}"));
        fs::write(&own, content).map_err(|e| format!("write {own}: {e}"))?;
        if fs::symlink_metadata(&place).is_ok_and(|place| place.is_file()) {
            let bind = MsFlags::MS_BIND;
            mount(Some(own.as_str()), place.as_str(), None::<&str>, bind, None::<&str>)
                .map_err(|e| format!("mount {own} on {place}: {e}"))?;
        }
    }
    Ok(())
}

/// overlayfs shows the upper folder's owner and mode as the root's, which are to be the image's.
fn give_root(image: &str, upper: &str) -> io::Result<()> {
    let (wanted, given) = (fs::metadata(image)?, fs::metadata(upper)?);
    // Nearly always root's and 0755, as the folder is; a write of an inode is a request to the disk.
    if (wanted.uid(), wanted.gid()) != (given.uid(), given.gid()) {
        chown(upper, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    if wanted.mode() != given.mode() {
        fs::set_permissions(upper, fs::Permissions::from_mode(wanted.mode() & 0o7777))?;
    }
    Ok(())
}

/// Mounts the first of `devices` that has this file system, with the first of `options` that its kernel
/// knows, and says which device it was.
fn mount_one(
    devices: &[String],
    filesystem: &str,
    target: &str,
    flags: MsFlags,
    options: &[&str],
) -> Result<String, Failure> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let mut last = Errno::ENOENT;
        for (options, device) in options.iter().flat_map(|o| devices.iter().map(move |d| (o, d))) {
            match mount(Some(device.as_str()), target, Some(filesystem), flags, Some(*options)) {
                Ok(()) => return Ok(device.clone()),
                Err(error) => last = error,
            }
        }
        // A kernel without the file system will not get it by waiting.
        if last == Errno::ENODEV || Instant::now() > deadline {
            let devices = devices.join(" or ");
            return Err(format!("mount {filesystem} from {devices}: {last}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What switch_root(8) does: the initramfs cannot be unmounted, so its root is covered.
fn switch_to(root: &str) -> Result<(), Errno> {
    let none = None::<&Path>;
    chdir(root)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    chdir("/")
}
