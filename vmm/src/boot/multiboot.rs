//! Multiboot kernels (Multiboot Specification 0.6.96): the header in the image, and what the kernel
//! is told. There is no BIOS behind, so a kernel that calls one finds nothing.

use std::path::Path;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::image::{KernelError, Segment};
use super::layout::{BASE_MEMORY_END, BOOT_INFO, CMDLINE, HIGH_MEMORY};
use super::memory_map::{MemoryRange, RAM};
use crate::memory::GuestRam;

/// EAX at the entry (3.2).
pub const BOOTLOADER_MAGIC: u32 = 0x2bad_b002;

/// In the image (3.1).
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// Bytes of the image that may hold the header.
const SEARCHED: usize = 8192;

/// Header flags: modules on page boundaries and memory information are offered, a video mode is
/// not, which QEMU does not let stand in the way either.
const KNOWN_REQUIREMENTS: u32 = 0b111;
const REQUIREMENTS: u32 = 0xffff;
/// The header says where to load the image, instead of ELF's.
const PLACED: u32 = 1 << 16;

/// A header found in an image.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    at: u64,
    flags: u32,
    /// header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr.
    addresses: [u64; 5],
}

/// An image that its header places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What of the file goes where in memory.
    pub segment: Segment,
    /// Guest-physical entry point.
    pub entry: u64,
    /// End of what it occupies.
    pub end: u64,
}

impl Header {
    /// Looks for a header in the start of an image.
    pub fn find(head: &[u8]) -> Option<Self> {
        let head = &head[..head.len().min(SEARCHED)];
        let word = |at: usize| head.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        (0..head.len()).step_by(4).find_map(|at| {
            let (magic, flags, checksum) = (word(at)?, word(at + 4)?, word(at + 8)?);
            let sums_up = magic.wrapping_add(flags).wrapping_add(checksum) == 0;
            let field = |n: usize| word(at + 12 + 4 * n).unwrap_or(0).into();
            let addresses = [0, 1, 2, 3, 4].map(field);
            (magic == HEADER_MAGIC && sums_up).then_some(Self { at: at as u64, flags, addresses })
        })
    }

    /// Whether the header says where to load the image.
    pub fn places_itself(&self) -> bool {
        self.flags & PLACED != 0
    }

    /// Whether all that the kernel requires is offered.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, path: &Path) -> Result<(), KernelError> {
        match self.flags & REQUIREMENTS & !KNOWN_REQUIREMENTS {
            0 => Ok(()),
            flags => Err(KernelError::MultibootFlags { path: path.to_owned(), flags }),
        }
    }

    /// Where to load an image of `length` bytes that is not ELF.
    ///
    /// # Errors
    /// It requires what is not offered, or its addresses make no sense.
    pub fn placed(&self, path: &Path, length: u64) -> Result<Placed, KernelError> {
        self.check(path)?;
        let malformed = |what| KernelError::Malformed { path: path.to_owned(), what };
        if !self.places_itself() {
            return Err(malformed("its multiboot header does not say where to load it"));
        }
        let [header, load, load_end, bss_end, entry] = self.addresses;
        let offset = header.checked_sub(load).and_then(|before| self.at.checked_sub(before));
        let offset = offset.ok_or_else(|| malformed("its multiboot header is out of its reach"))?;
        let in_file = match load_end {
            0 => length.saturating_sub(offset),
            end => end.checked_sub(load).ok_or_else(|| malformed("it ends before it begins"))?,
        };
        if offset.saturating_add(in_file) > length {
            let (path, needed) = (path.to_owned(), offset.saturating_add(in_file));
            return Err(KernelError::Truncated { path, length, needed });
        }
        if load < HIGH_MEMORY {
            return Err(malformed("it is loaded into the first MiB"));
        }
        let end = (load + in_file).max(bss_end);
        if !(load..end).contains(&entry) {
            return Err(malformed("its entry point lies outside of it"));
        }
        Ok(Placed { segment: Segment { offset, in_file, address: load }, entry, end })
    }
}

/// Information flags (3.3).
mod info {
    pub const MEMORY: u32 = 1 << 0;
    pub const CMDLINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const MEMORY_MAP: u32 = 1 << 6;
    pub const LOADER_NAME: u32 = 1 << 9;
}

/// Bytes of the information that are filled in, up to and with boot_loader_name.
const INFO_LENGTH: usize = 68;
/// Behind it; each has room for what it may hold.
const LOADER_NAME: u64 = BOOT_INFO + 0x80;
const MEMORY_MAP: u64 = BOOT_INFO + 0x100;
const MODULES: u64 = BOOT_INFO + 0x400;
/// Modules that there is room for, of 16 bytes each.
pub const MAX_MODULES: usize = 0x100;
const EMPTY_STRING: u64 = LOADER_NAME + LOADER.len() as u64 - 1;
const LOADER: &[u8] = b"isolab\0";

/// The command line as the kernel sees it: its own name comes first, as from QEMU.
pub fn cmdline(kernel: &Path, cmdline: &str) -> String {
    format!("{} {cmdline}", kernel.display())
}

/// Writes the information. The command line is in its place already; `modules` are address and
/// length of each.
///
/// # Errors
/// The first MiB is RAM in every valid configuration.
pub fn write_info(
    ram: &GuestRam,
    map: &[MemoryRange],
    modules: &[(u64, u64)],
) -> Result<(), GuestMemoryError> {
    let mut list = Vec::new();
    for range in map {
        list.extend(20u32.to_le_bytes()); // Of the entry, without this field.
        list.extend(range.start.to_le_bytes());
        list.extend(range.length.to_le_bytes());
        list.extend(range.kind.to_le_bytes());
    }
    ram.write_slice(&list, GuestAddress(MEMORY_MAP))?;
    ram.write_slice(LOADER, GuestAddress(LOADER_NAME))?;
    let mut table = Vec::new();
    for &(start, length) in modules {
        for field in [start, start + length, EMPTY_STRING, 0] {
            table.extend((field as u32).to_le_bytes()); // All of it is below 4 GiB.
        }
    }
    ram.write_slice(&table, GuestAddress(MODULES))?;

    let above = map.iter().find(|range| range.start == HIGH_MEMORY && range.kind == RAM);
    let mut flags = info::MEMORY | info::CMDLINE | info::MEMORY_MAP | info::LOADER_NAME;
    flags |= if modules.is_empty() { 0 } else { info::MODULES };
    let mut bytes = [0; INFO_LENGTH];
    let mut set = |at: usize, value: u64| {
        bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    };
    set(0, flags.into());
    set(4, BASE_MEMORY_END >> 10);
    set(8, above.map_or(0, |range| range.length >> 10));
    set(16, CMDLINE);
    set(20, modules.len() as u64);
    set(24, MODULES);
    set(44, list.len() as u64);
    set(48, MEMORY_MAP);
    set(64, LOADER_NAME);
    ram.write_slice(&bytes, GuestAddress(BOOT_INFO))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image that begins with `words` at `at`.
    fn image(at: usize, words: &[u32]) -> Vec<u8> {
        let mut image = vec![0x90; at];
        image.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        image.resize(at + 100, 0x90);
        image
    }

    fn checksum(flags: u32) -> u32 {
        0u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags)
    }

    #[test]
    fn a_header_is_found_by_its_checksum_in_the_first_8_kib() {
        let words = |flags| [HEADER_MAGIC, flags, checksum(flags)];
        assert_eq!(Header::find(&image(64, &words(3))).unwrap().flags, 3);
        assert!(Header::find(&image(62, &words(3))).is_none(), "at a multiple of 4");
        assert!(Header::find(&image(8192, &words(3))).is_none());
        assert!(Header::find(&image(0, &[HEADER_MAGIC, 3, checksum(2)])).is_none());
        assert!(Header::find(&image(0, &words(3))[..11]).is_none());
        let strict = Header::find(&image(0, &words(1 << 5 | 3))).unwrap();
        assert!(matches!(
            strict.check(Path::new("k")),
            Err(KernelError::MultibootFlags { flags: 0x20, .. })
        ));
    }

    #[test]
    fn an_image_that_is_not_elf_is_placed_by_its_header() {
        let path = Path::new("k");
        let placed = |addresses: [u32; 5]| {
            let flags = PLACED | 3;
            let words = [&[HEADER_MAGIC, flags, checksum(flags)][..], &addresses].concat();
            let image = image(64, &words);
            Header::find(&image).unwrap().placed(path, image.len() as u64)
        };
        let good = placed([0x10_0020, 0x10_0000, 0x10_0040, 0x10_1000, 0x10_0030]).unwrap();
        let segment = Segment { offset: 32, in_file: 64, address: 0x10_0000 };
        assert_eq!(good, Placed { segment, entry: 0x10_0030, end: 0x10_1000 });
        let whole = placed([0x10_0000, 0x10_0000, 0, 0, 0x10_0000]).unwrap();
        assert_eq!((whole.segment.offset, whole.segment.in_file), (64, 100));
        for bad in [
            [0x10_0000, 0x10_0001, 0, 0, 0x10_0000], // before its own start
            [0x10_0041, 0x10_0000, 0, 0, 0x10_0000], // before the file's
            [0x10_0000, 0x10_0000, 0x10_1000, 0, 0x10_0000], // beyond the file's end
            [0x10_0000, 0x10_0000, 0x0f_0000, 0, 0x10_0000], // ends before it begins
            [0x8_0000, 0x8_0000, 0, 0, 0x8_0000],    // low memory
            [0x10_0000, 0x10_0000, 0, 0, 0x20_0000], // entry outside
        ] {
            assert!(placed(bad).is_err(), "{bad:x?}");
        }
        let elf_only = Header::find(&image(0, &[HEADER_MAGIC, 0, checksum(0)])).unwrap();
        assert!(matches!(elf_only.placed(path, 100), Err(KernelError::Malformed { .. })));
    }
}
