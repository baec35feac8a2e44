//! The machines of virtual machine monitors: what each boots, and by which command.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use isolab_vmm::backend::disk::{CacheMode, EngineKind};

/// What every kernel is told.
pub(super) const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// Added for a peer's machine without a PCI bus, so that none is looked for; ours tells its kernel
/// itself.
pub(super) const NO_PCI: &str = " pci=off";

/// A machine that a VMM can be asked for.
#[derive(Debug)]
pub struct Machine {
    /// The name of the peer whose it is; none: ours.
    pub peer: Option<&'static str>,
    /// As it stands in reports where the VMM's start is measured.
    pub name: &'static str,
    /// Whether it boots a bzImage only, and no vmlinux.
    pub needs_bzimage: bool,
    /// The exit code of the VMM when its guest reboots.
    pub reboot_code: i32,
    /// What the VMM is told. A configuration file may have to be written.
    pub(super) arguments: fn(&Boot) -> io::Result<Vec<OsString>>,
}

/// What every VMM boots.
pub struct Boot {
    /// An uncompressed vmlinux.
    pub kernel: PathBuf,
    /// The same as a bzImage.
    pub bzimage: Option<PathBuf>,
    /// The initramfs, an uncompressed cpio archive.
    pub initrd: PathBuf,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// vCPUs of the machine.
    pub cpus: u32,
    /// A folder for configuration files.
    pub scratch: PathBuf,
    /// At most one; our machines and QEMU's only.
    pub device: Option<Device>,
    /// For how many microseconds our virtio devices' threads look for work before they sleep, where that pays; none: as
    /// `isolab vm run` has it.
    pub poll: Option<u16>,
}

/// A device, and what is behind it.
#[derive(Clone, Debug)]
pub enum Device {
    /// A disk with a raw file or block device behind it.
    Disk(Disk),
    /// A network card with a tap behind it.
    Net(Net),
}

/// A raw file or block device, and how the VMM is to use it.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The disk's image, raw, or a block device.
    pub path: PathBuf,
    /// QEMU's and our word: `none`, `writeback`, `writethrough`.
    pub cache: CacheMode,
    /// How requests reach the host's kernel.
    pub engine: EngineKind,
}

/// A tap of the host's, and what the VMM is to make of it.
#[derive(Clone, Debug)]
pub struct Net {
    /// The tap's name.
    pub tap: String,
    /// Whether the host's kernel moves the frames.
    pub vhost: bool,
}

/// The address of every guest's card.
pub(super) const MAC: &str = "02:00:00:00:77:02";

/// A cache mode in QEMU's and our words.
pub(super) fn cache_word(cache: CacheMode) -> &'static str {
    match cache {
        CacheMode::Writeback => "writeback",
        CacheMode::Writethrough => "writethrough",
        CacheMode::None => "none",
    }
}

pub(super) fn mebibytes(boot: &Boot) -> u64 {
    boot.memory >> 20
}

/// Words and paths as arguments.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($argument)),*] };
}
pub(super) use arguments;

/// A path as part of an option: a comma in it is doubled (qemu(1), "-drive"; ours alike).
pub(super) fn as_option(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
