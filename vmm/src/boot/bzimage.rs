//! bzImages (Documentation/arch/x86/boot.rst): their header, the vmlinux inside them, and the
//! protected-mode code that unpacks it, which only 32-bit ones need.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::loader::bootparam::{LOADED_HIGH, setup_header};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::ByteValued;

use super::decompress::{Compression, decompress};
use super::image::{KernelError, Segment};
use super::kernel_cache::KernelCache;
use super::layout::HIGH_MEMORY;
use super::sparse;

/// The first protocol with code32_start and a command line at any address.
const LEAST_VERSION: u16 = 0x0202;
/// With payload_offset and payload_length.
const WITH_PAYLOAD: u16 = 0x0208;
/// With pref_address and init_size.
const WITH_INIT_SIZE: u16 = 0x020a;
/// Boot protocol 2.12, the first with xloadflags (Linux, Documentation/arch/x86/boot.rst).
const WITH_XLOADFLAGS: u16 = 0x020c;
/// xloadflags: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;

/// The setup header ("The Real-Mode Kernel Header").
#[derive(Clone, Copy, Debug)]
pub struct BzImage(pub setup_header);

impl BzImage {
    /// Where the header lies in the file.
    pub const START: usize = 0x1f1;
    /// Behind the longest that is known.
    pub const END: usize = Self::START + size_of::<setup_header>();

    /// Reads the header from `head`, the start of the file; `None` when there is none.
    ///
    /// # Errors
    /// It is cut off, or of a protocol that needs a BIOS.
    pub fn parse(path: &Path, head: &[u8]) -> Result<Option<Self>, KernelError> {
        if head.get(0x1fe..0x200) != Some(&[0x55, 0xaa]) || head.get(0x202..0x206) != Some(b"HdrS")
        {
            return Ok(None);
        }
        let Some(bytes) = head.get(Self::START..Self::END) else {
            let length = head.len() as u64;
            let needed = Self::END as u64;
            return Err(KernelError::Truncated { path: path.to_owned(), length, needed });
        };
        // The header ends where the jump at 0x200 leads to; what lies behind is code.
        let end = (0x202 + usize::from(head[0x201])).clamp(0x22c, Self::END) - Self::START;
        let mut header = setup_header::default();
        header.as_mut_slice()[..end].copy_from_slice(&bytes[..end]);
        let version = header.version;
        if version < LEAST_VERSION {
            return Err(KernelError::OldProtocol { path: path.to_owned(), version });
        }
        Ok(Some(Self(header)))
    }

    /// Where the vmlinux lies in the file, compressed; `None` when there is none to speak of.
    pub fn payload(&self) -> Option<(u64, u64)> {
        let length = u64::from(self.0.payload_length);
        let offset = self.protected_mode_offset() + u64::from(self.0.payload_offset);
        (self.0.version >= WITH_PAYLOAD && length > 0).then_some((offset, length))
    }

    /// Whether the header says that there is no 64-bit kernel inside.
    pub fn is_32_bit(&self) -> bool {
        self.0.version >= WITH_XLOADFLAGS && self.0.xloadflags & XLF_KERNEL_64 == 0
    }

    fn protected_mode_offset(&self) -> u64 {
        let sectors = match self.0.setup_sects {
            0 => 4, // boot.rst: "for backwards compatibility".
            sectors => u64::from(sectors),
        };
        (sectors + 1) * 512
    }

    /// The protected-mode code, its entry point and the end of the memory that it takes, for the
    /// 32-bit boot protocol.
    ///
    /// # Errors
    /// It starts in real mode only, where it would call a BIOS (iPXE does).
    pub fn protected_mode(
        &self,
        path: &Path,
        length: u64,
    ) -> Result<(Segment, u64, u64), KernelError> {
        let entry = u64::from(self.0.code32_start);
        let offset = self.protected_mode_offset();
        if self.0.loadflags & LOADED_HIGH == 0 || entry < HIGH_MEMORY {
            return Err(KernelError::NeedsFirmware { path: path.to_owned() });
        }
        if length <= offset {
            return Err(KernelError::Truncated {
                path: path.to_owned(),
                length,
                needed: offset + 1,
            });
        }
        let in_file = length - offset;
        let mut end = HIGH_MEMORY + in_file;
        if self.0.version >= WITH_INIT_SIZE {
            end = end.max(self.0.pref_address.saturating_add(self.0.init_size.into()));
        }
        Ok((Segment { offset, in_file, address: HIGH_MEMORY }, entry, end))
    }
}

/// Decompresses the payload of the bzImage `file` into a file of its own.
///
/// # Errors
/// [`KernelError`].
pub fn extract(
    path: &Path,
    file: &File,
    (offset, payload_length): (u64, u64),
    cache: Option<&KernelCache>,
) -> Result<File, KernelError> {
    let read = |source| KernelError::Read { path: path.to_owned(), source };
    let length = file.metadata().map_err(read)?.len();
    let needed = offset + payload_length;
    if needed > length {
        return Err(KernelError::Truncated { path: path.to_owned(), length, needed });
    }
    // Not longer than the file, which is therefore a bound on the allocation.
    let mut payload = vec![0; payload_length as usize];
    file.read_exact_at(&mut payload, offset).map_err(read)?;
    let compression = Compression::of(&payload).ok_or_else(|| KernelError::Malformed {
        path: path.to_owned(),
        what: "its payload has an unknown compression",
    })?;
    let vmlinux = decompress(compression, &payload)
        .map_err(|source| KernelError::Decompress { path: path.to_owned(), source })?;
    if let Some(Ok(cached)) = cache.map(|cache| cache.store(file, &vmlinux)) {
        return Ok(cached);
    }
    in_memory(&vmlinux).map_err(read)
}

/// A file without a name, for when there is no cache.
pub fn in_memory(content: &[u8]) -> io::Result<File> {
    let file = File::from(memfd_create(c"vmlinux", MFdFlags::MFD_CLOEXEC)?);
    sparse::write(&file, content)?;
    Ok(file)
}
