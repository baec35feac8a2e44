//! Kernel images: an ELF vmlinux as it is, a bzImage (Documentation/arch/x86/boot.rst) by way of
//! the vmlinux inside it. The guest never decompresses: on most hosts that would cost more than
//! the rest of the boot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use linux_loader::elf::{Elf64_Ehdr, Elf64_Phdr, PT_LOAD};
use linux_loader::loader::bootparam::setup_header;
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend};

use super::decompress::{Compression, decompress};
use super::kernel_cache::KernelCache;
use super::layout::HIGH_MEMORY;
use crate::backend::regular_file;
use crate::memory::{GuestRam, HOLE_START};

/// A kernel image that cannot be started. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Missing, or not readable.
    #[error("cannot read kernel {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Neither ELF nor bzImage.
    #[error("{path} is not a kernel: neither an ELF vmlinux nor an x86 bzImage")]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// For another architecture.
    #[error(
        "kernel {path} is for another machine (ELF machine {machine}, class {class}); x86-64 is needed"
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// `e_machine`.
        machine: u16,
        /// `EI_CLASS`: 1 is 32-bit, 2 is 64-bit.
        class: u8,
    },
    /// Shorter than its headers say.
    #[error("kernel {path} is truncated: it has {length} bytes where its headers need {needed}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes there are.
        length: u64,
        /// Bytes there should be.
        needed: u64,
    },
    /// Contradicts the format.
    #[error("kernel {path} is malformed: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Before Linux 2.6.26.
    #[error("bzImage {path} speaks boot protocol {}.{:02}; 2.08 or newer is needed", version >> 8, version & 0xff)]
    OldProtocol {
        /// The file.
        path: PathBuf,
        /// As in the setup header.
        version: u16,
    },
    /// The payload could not be decompressed.
    #[error("cannot decompress bzImage {path}")]
    Decompress {
        /// The file.
        path: PathBuf,
        /// The decoder's answer.
        #[source]
        source: io::Error,
    },
    /// The guest has less RAM than the kernel occupies.
    #[error(
        "memory: kernel {path} occupies guest memory up to {} MiB, but there are {} MiB; raise memory",
        end.div_ceil(1 << 20),
        memory >> 20
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// End of the kernel in guest memory.
        end: u64,
        /// End of the RAM below 4 GiB.
        memory: u64,
    },
}

/// A part of the kernel: file content, then zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    in_file: u64,
    address: u64,
}

/// An opened kernel whose headers have been checked.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    vmlinux: File,
    segments: Vec<Segment>,
    /// Guest-physical address of `startup_64`.
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
        let (file, _) = regular_file::open(path).map_err(read)?;
        let mut head = [0; SetupHeader::END];
        let length = read_up_to(&file, &mut head).map_err(read)?;
        if head[..length].starts_with(b"\x7fELF") {
            return Self::from_elf(path, file, None);
        }
        let header = SetupHeader::parse(path, &head[..length])?;
        if let Some(vmlinux) = cache.and_then(|cache| cache.find(&file)) {
            // A cached file that turns out to be damaged is made anew below.
            if let Ok(kernel) = Self::from_elf(path, vmlinux, Some(header.0)) {
                return Ok(kernel);
            }
        }
        let vmlinux = extract(path, &file, &header, cache)?;
        Self::from_elf(path, vmlinux, Some(header.0))
    }

    /// Checks the ELF headers of `vmlinux` (System V ABI, "ELF Header" and "Program Header").
    fn from_elf(
        path: &Path,
        vmlinux: File,
        setup_header: Option<setup_header>,
    ) -> Result<Self, KernelError> {
        let malformed = |what| KernelError::Malformed { path: path.to_owned(), what };
        let read = |source| KernelError::Read { path: path.to_owned(), source };
        let length = vmlinux.metadata().map_err(read)?.len();
        let truncated = |needed| KernelError::Truncated { path: path.to_owned(), length, needed };

        let mut header = Elf64_Ehdr::default();
        if length < size_of::<Elf64_Ehdr>() as u64 {
            return Err(truncated(size_of::<Elf64_Ehdr>() as u64));
        }
        vmlinux.read_exact_at(header.as_mut_slice(), 0).map_err(read)?;
        let [_, _, _, _, class, data, ..] = header.e_ident;
        if class != 2 || data != 1 || header.e_machine != EM_X86_64 {
            let machine = if data == 2 { header.e_machine.swap_bytes() } else { header.e_machine };
            return Err(KernelError::OtherMachine { path: path.to_owned(), machine, class });
        }
        if header.e_type != ET_EXEC {
            return Err(malformed("it is not an executable"));
        }
        if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
            return Err(malformed("its program headers have an unknown size"));
        }

        let count = u64::from(header.e_phnum);
        let needed = header.e_phoff.checked_add(count * size_of::<Elf64_Phdr>() as u64);
        let needed = needed.ok_or_else(|| malformed("its program headers are out of reach"))?;
        if needed > length {
            return Err(truncated(needed));
        }
        let mut segments = Vec::new();
        let mut end = 0;
        for index in 0..count {
            let mut program = Elf64_Phdr::default();
            let at = header.e_phoff + index * size_of::<Elf64_Phdr>() as u64;
            vmlinux.read_exact_at(program.as_mut_slice(), at).map_err(read)?;
            if program.p_type != PT_LOAD {
                continue;
            }
            let wraps = || malformed("a segment wraps around");
            let file_end = program.p_offset.checked_add(program.p_filesz).ok_or_else(wraps)?;
            if file_end > length {
                return Err(truncated(file_end));
            }
            if program.p_memsz < program.p_filesz {
                return Err(malformed("a segment is larger in the file than in memory"));
            }
            if program.p_paddr < HIGH_MEMORY {
                return Err(malformed("a segment lies in the first MiB"));
            }
            end = end.max(program.p_paddr.checked_add(program.p_memsz).ok_or_else(wraps)?);
            segments.push(Segment {
                offset: program.p_offset,
                in_file: program.p_filesz,
                address: program.p_paddr,
            });
        }
        if !(HIGH_MEMORY..end).contains(&header.e_entry) {
            return Err(malformed("its entry point lies outside of it"));
        }
        let path = path.to_owned();
        Ok(Self { path, vmlinux, segments, entry: header.e_entry, end, setup_header })
    }

    #[cfg(test)]
    pub(super) fn with_end(end: u64) -> Self {
        Self {
            path: PathBuf::new(),
            vmlinux: in_memory(b"").expect("a test has file descriptors"),
            segments: Vec::new(),
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
        let mut file = &self.vmlinux;
        file.seek(SeekFrom::Start(segment.offset))?;
        let length = usize::try_from(segment.in_file).map_err(io::Error::other)?;
        ram.read_exact_volatile_from(GuestAddress(segment.address), &mut file, length)
            .map_err(io::Error::other)
    }
}

const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;

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

/// The setup header of a bzImage (boot.rst, "The Real-Mode Kernel Header").
struct SetupHeader(setup_header);

impl SetupHeader {
    const START: usize = 0x1f1;
    const END: usize = Self::START + size_of::<setup_header>();
    /// The first protocol with payload_offset and payload_length.
    const LEAST_VERSION: u16 = 0x0208;

    fn parse(path: &Path, head: &[u8]) -> Result<Self, KernelError> {
        let not_a_kernel = || KernelError::NotAKernel { path: path.to_owned() };
        if head.get(0x1fe..0x200) != Some(&[0x55, 0xaa]) || head.get(0x202..0x206) != Some(b"HdrS")
        {
            return Err(not_a_kernel());
        }
        let Some(bytes) = head.get(Self::START..Self::END) else {
            let length = head.len() as u64;
            let needed = Self::END as u64;
            return Err(KernelError::Truncated { path: path.to_owned(), length, needed });
        };
        // The header ends where the jump at 0x200 leads to; what lies behind is code.
        let end = (0x202 + usize::from(head[0x201])).clamp(0x24c, Self::END) - Self::START;
        let mut header = setup_header::default();
        header.as_mut_slice()[..end].copy_from_slice(&bytes[..end]);
        let version = header.version;
        if version < Self::LEAST_VERSION {
            return Err(KernelError::OldProtocol { path: path.to_owned(), version });
        }
        Ok(Self(header))
    }

    /// Where the payload lies in the file.
    fn payload(&self) -> (u64, u64) {
        let sectors = match self.0.setup_sects {
            0 => 4, // boot.rst: "for backwards compatibility".
            sectors => u64::from(sectors),
        };
        let offset = (sectors + 1) * 512 + u64::from(self.0.payload_offset);
        (offset, self.0.payload_length.into())
    }
}

/// Decompresses the payload of the bzImage `file` into a file of its own.
fn extract(
    path: &Path,
    file: &File,
    header: &SetupHeader,
    cache: Option<&KernelCache>,
) -> Result<File, KernelError> {
    let read = |source| KernelError::Read { path: path.to_owned(), source };
    let length = file.metadata().map_err(read)?.len();
    let (offset, payload_length) = header.payload();
    let needed = offset + payload_length;
    if needed > length {
        return Err(KernelError::Truncated { path: path.to_owned(), length, needed });
    }
    // Not longer than the file, which is therefore a bound on the allocation.
    let mut image = vec![0; needed as usize];
    file.read_exact_at(&mut image, 0).map_err(read)?;
    let payload = &image[offset as usize..];
    let compression = Compression::of(payload).ok_or_else(|| KernelError::Malformed {
        path: path.to_owned(),
        what: "its payload has an unknown compression",
    })?;
    let vmlinux = decompress(compression, payload)
        .map_err(|source| KernelError::Decompress { path: path.to_owned(), source })?;
    if let Some(Ok(cached)) = cache.map(|cache| cache.store(file, &vmlinux)) {
        return Ok(cached);
    }
    in_memory(&vmlinux).map_err(read)
}

/// A file without a name, for when there is no cache.
fn in_memory(content: &[u8]) -> io::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a NUL-terminated string; the call has no other preconditions.
    let fd = unsafe { libc::memfd_create(c"vmlinux".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is open, and nobody else knows it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.write_all_at(content, 0)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
