//! Kernel images, and by which protocol each is started. A Linux vmlinux is loaded as it is, a
//! bzImage by way of the vmlinux inside it: the guest never decompresses, which on most hosts would
//! cost more than the rest of the boot. 32-bit bzImages unpack themselves. Other ELF kernels are
//! started by PVH or multiboot, as QEMU's -kernel does.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::setup_header;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::bzimage::{self, BzImage};
use super::elf_image::ElfImage;
use super::image::{KernelError, Segment};
use super::kernel_cache::KernelCache;
use super::layout::HIGH_MEMORY;
use super::{multiboot, sparse};
use crate::backend::regular_file;
use crate::memory::{GuestRam, HOLE_START};

/// What is looked at to know a file by: multiboot headers lie in the first 8 KiB.
const HEAD: usize = 8192;

/// How a kernel is entered, and in what form it is told of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux's 64-bit boot protocol: long mode, a zero page.
    Linux64,
    /// Linux's 32-bit boot protocol: protected mode, a zero page.
    Linux32,
    /// Xen's PVH: protected mode, a start info.
    Pvh,
    /// Multiboot 1: protected mode, an information structure.
    Multiboot,
}

/// An opened kernel whose headers have been checked.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    file: File,
    segments: Vec<Segment>,
    /// By which boot protocol it is entered.
    pub protocol: Protocol,
    /// Guest-physical address of its first instruction.
    pub entry: u64,
    /// End of the highest segment, in guest-physical memory.
    pub end: u64,
    /// What a bzImage says of itself.
    pub setup_header: Option<setup_header>,
}

impl Kernel {
    /// Opens the kernel at `path`, decompressing it unless `cache` has it already.
    ///
    /// # Errors
    /// [`KernelError`]. A cache that cannot be used is not an error.
    pub fn open(path: &Path, cache: Option<&KernelCache>) -> Result<Self, KernelError> {
        let read = |source| KernelError::Read { path: path.to_owned(), source };
        let (file, length) = regular_file::open(path).map_err(read)?;
        let mut head = vec![0; HEAD];
        let head_length = read_up_to(&file, &mut head).map_err(read)?;
        head.truncate(head_length);
        if head.starts_with(b"\x7fELF") {
            let image = ElfImage::read(path, &file)?;
            return Self::from_elf(path, file, image, &head);
        }
        if let Some(bzimage) = BzImage::parse(path, &head)? {
            return Self::from_bzimage(path, file, length, bzimage, cache);
        }
        if let Some(header) = multiboot::Header::find(&head) {
            return Self::from_multiboot(path, file, header);
        }
        let path = path.to_owned();
        Err(match other_kind(&head) {
            Some((kind, hint)) => KernelError::OtherKind { path, kind, hint },
            None => KernelError::NotAKernel { path },
        })
    }

    /// A Linux vmlinux is started as such, though it may offer PVH as well: its 64-bit entry point
    /// spares it the way there.
    fn from_elf(
        path: &Path,
        file: File,
        image: ElfImage,
        head: &[u8],
    ) -> Result<Self, KernelError> {
        let multiboot = multiboot::Header::find(head);
        let (protocol, entry) = match (image.pvh_entry, multiboot, image.is_64_bit) {
            (_, _, true) if image.is_linux => (Protocol::Linux64, image.entry),
            (_, _, false) if image.is_linux => (Protocol::Linux32, image.entry),
            (Some(entry), _, _) => (Protocol::Pvh, entry),
            (None, Some(header), _) if header.places_itself() => {
                return Self::from_multiboot(path, file, header);
            }
            (None, Some(header), _) => {
                header.check(path)?;
                (Protocol::Multiboot, image.entry)
            }
            (None, None, true) => (Protocol::Linux64, image.entry),
            (None, None, false) => {
                return Err(KernelError::NoProtocol { path: path.to_owned() });
            }
        };
        if !(HIGH_MEMORY..image.end).contains(&entry) {
            let what = "its PVH entry point lies outside of it";
            return Err(KernelError::Malformed { path: path.to_owned(), what });
        }
        let (segments, end, path) = (image.segments, image.end, path.to_owned());
        Ok(Self { path, file, segments, protocol, entry, end, setup_header: None })
    }

    fn from_bzimage(
        path: &Path,
        file: File,
        length: u64,
        bzimage: BzImage,
        cache: Option<&KernelCache>,
    ) -> Result<Self, KernelError> {
        if let Some(payload) = bzimage.payload().filter(|_| !bzimage.is_32_bit()) {
            // A cached file that turns out to be damaged is made anew.
            let cached = cache.and_then(|cache| cache.find(&file));
            let cached = cached.and_then(|file| Self::from_vmlinux(path, file, bzimage).ok());
            let kernel = match cached {
                Some(kernel) => kernel,
                None => {
                    let vmlinux = bzimage::extract(path, &file, payload, cache)?;
                    Self::from_vmlinux(path, vmlinux, bzimage)?
                }
            };
            // One of i386 from before xloadflags unpacks itself.
            if kernel.protocol == Protocol::Linux64 {
                return Ok(kernel);
            }
        }
        let (segment, entry, end) = bzimage.protected_mode(path, length)?;
        let (segments, protocol) = (vec![segment], Protocol::Linux32);
        let (path, setup_header) = (path.to_owned(), Some(bzimage.0));
        Ok(Self { path, file, segments, protocol, entry, end, setup_header })
    }

    /// The kernel inside a bzImage, which is Linux, whatever it says.
    fn from_vmlinux(path: &Path, file: File, bzimage: BzImage) -> Result<Self, KernelError> {
        let image = ElfImage::read(path, &file)?;
        let protocol = if image.is_64_bit { Protocol::Linux64 } else { Protocol::Linux32 };
        let (segments, entry, end) = (image.segments, image.entry, image.end);
        let (path, setup_header) = (path.to_owned(), Some(bzimage.0));
        Ok(Self { path, file, segments, protocol, entry, end, setup_header })
    }

    /// A kernel that its multiboot header places, whatever its format.
    fn from_multiboot(
        path: &Path,
        file: File,
        header: multiboot::Header,
    ) -> Result<Self, KernelError> {
        let read = |source| KernelError::Read { path: path.to_owned(), source };
        let image = header.placed(path, file.metadata().map_err(read)?.len())?;
        let (segments, entry, end) = (vec![image.segment], image.entry, image.end);
        let (path, protocol) = (path.to_owned(), Protocol::Multiboot);
        Ok(Self { path, file, segments, protocol, entry, end, setup_header: None })
    }

    /// The file's name as the operator gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(super) fn with_end(end: u64) -> Self {
        Self {
            path: PathBuf::new(),
            file: bzimage::in_memory(b"").expect("a test has file descriptors"),
            segments: Vec::new(),
            protocol: Protocol::Linux64,
            entry: HIGH_MEMORY,
            end,
            setup_header: None,
        }
    }

    /// Puts the kernel where it wants to be in guest RAM.
    ///
    /// # Errors
    /// It does not fit below the hole, or the file cannot be read.
    pub fn load(&self, ram: &GuestRam) -> Result<(), KernelError> {
        let memory = HOLE_START.min(ram.last_addr().0 + 1);
        if self.end > memory {
            return Err(KernelError::TooLarge { path: self.path.clone(), end: self.end, memory });
        }
        for segment in &self.segments {
            self.read_segment(ram, segment)
                .map_err(|source| KernelError::Read { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Reads rather than maps. Mapping the file saves 12 ms of set-up on the emulated KVM host, but
    /// costs the guest 55 ms (of 150 until its init): a nested page fault for each 4 KiB page it
    /// touches, where memory that was read lies in a few huge pages.
    fn read_segment(&self, ram: &GuestRam, segment: &Segment) -> io::Result<()> {
        use std::io::{Seek, SeekFrom};
        let mut file = &self.file;
        let end = segment.offset.saturating_add(segment.in_file);
        for part in sparse::data(file, segment.offset..end)? {
            file.seek(SeekFrom::Start(part.start))?;
            let address = GuestAddress(segment.address + (part.start - segment.offset));
            let length = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
            ram.read_exact_volatile_from(address, &mut file, length).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Reads from the start of `file` until `buffer` is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// What people take for a kernel that starts by itself, and the way out.
fn other_kind(head: &[u8]) -> Option<(&'static str, &'static str)> {
    const FIRMWARE: &str = "it needs UEFI firmware, which there is none of here";
    let multiboot2 = 0xe852_50d6_u32.to_le_bytes();
    let kinds: [(&str, &str, bool); 7] = [
        ("an arm64 kernel", "x86-64 is needed", head.get(56..60) == Some(b"ARM\x64")),
        ("a RISC-V kernel", "x86-64 is needed", head.get(56..60) == Some(b"RSC\x05")),
        ("an EFI application", FIRMWARE, head.starts_with(b"MZ")),
        (
            "a multiboot2 image",
            "only multiboot 1 is spoken here",
            head.chunks_exact(8).any(|field| field.starts_with(&multiboot2)),
        ),
        ("a gzip file", "unpack it with `gunzip`", head.starts_with(b"\x1f\x8b")),
        ("an xz file", "unpack it with `unxz`", head.starts_with(b"\xfd7zXZ\0")),
        ("a zstd file", "unpack it with `unzstd`", head.starts_with(b"\x28\xb5\x2f\xfd")),
    ];
    kinds.into_iter().find(|(.., is)| *is).map(|(kind, hint, _)| (kind, hint))
}

#[cfg(test)]
mod tests;
