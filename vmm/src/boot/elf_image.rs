//! ELF images, 32- and 64-bit: what to load where, and which boot protocols their notes offer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use elf::abi::{EM_386, EM_X86_64, ET_EXEC, PT_LOAD, PT_NOTE};
use elf::endian::AnyEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::note::{Note, NoteIterator};
use elf::parse::ParseAt;
use elf::segment::{ProgramHeader, SegmentTable};

use super::image::{KernelError, Segment};
use super::layout::HIGH_MEMORY;

/// e_ident and the rest of the header (System V ABI, "ELF Header").
const IDENT: usize = 16;
const HEADER_32: usize = IDENT + elf::file::ELF32_EHDR_TAILSIZE;
const HEADER_64: usize = IDENT + elf::file::ELF64_EHDR_TAILSIZE;
/// Linux's notes are some hundred bytes.
const MAX_NOTES: u64 = 1 << 16;

/// Whose notes these are; names in notes end with a zero.
const LINUX: &[u8] = b"Linux\0";
const XEN: &[u8] = b"Xen\0";
/// `XEN_ELFNOTE_PHYS32_ENTRY` (xen/include/public/elfnote.h): the entry of the PVH protocol.
const PHYS32_ENTRY: u64 = 18;

/// What an image's headers say, checked.
#[derive(Debug)]
pub struct ElfImage {
    /// Whether it is for x86-64; otherwise it is for i386.
    pub is_64_bit: bool,
    /// The PT_LOAD parts with content in the file.
    pub segments: Vec<Segment>,
    /// Guest-physical entry point.
    pub entry: u64,
    /// End of the highest segment.
    pub end: u64,
    /// Whether it is a Linux kernel, by a note that those have had since 4.19.
    pub is_linux: bool,
    /// Where a PVH guest starts, if it is one.
    pub pvh_entry: Option<u64>,
}

impl ElfImage {
    /// Reads and checks the headers of `file`, whose name is `path`.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn read(path: &Path, file: &File) -> Result<Self, KernelError> {
        let malformed = |what| KernelError::Malformed { path: path.to_owned(), what };
        let read = |source| KernelError::Read { path: path.to_owned(), source };
        let length = file.metadata().map_err(read)?.len();
        let part = |at: u64, size: u64| {
            let needed = at.checked_add(size);
            let needed = needed.ok_or_else(|| malformed("its headers are out of reach"))?;
            if needed > length {
                return Err(KernelError::Truncated { path: path.to_owned(), length, needed });
            }
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, at).map_err(read)?;
            Ok(bytes)
        };

        let ident = part(0, IDENT as u64)?;
        let ident = parse_ident::<AnyEndian>(&ident)
            .map_err(|_| malformed("its ELF identification makes no sense"))?;
        let class = ident.1;
        let (header_size, program_header_size) = match class {
            Class::ELF32 => (HEADER_32, ProgramHeader::size_for(class)),
            Class::ELF64 => (HEADER_64, ProgramHeader::size_for(class)),
        };
        let header = part(0, header_size as u64)?;
        let header = FileHeader::parse_tail(ident, &header[IDENT..])
            .map_err(|_| malformed("its ELF header makes no sense"))?;
        let is_64_bit = match (class, header.e_machine, header.endianness) {
            (Class::ELF64, EM_X86_64, AnyEndian::Little) => true,
            (Class::ELF32, EM_386, AnyEndian::Little) => false,
            _ => {
                let machine = header.e_machine;
                let class = if class == Class::ELF32 { 1 } else { 2 };
                return Err(KernelError::OtherMachine { path: path.to_owned(), machine, class });
            }
        };
        if header.e_type != ET_EXEC {
            return Err(malformed("it is not an executable"));
        }
        if usize::from(header.e_phentsize) != program_header_size {
            return Err(malformed("its program headers have an unknown size"));
        }

        let size = u64::from(header.e_phnum) * program_header_size as u64;
        let table = part(header.e_phoff, size)?;
        let mut image = Self {
            is_64_bit,
            segments: Vec::new(),
            entry: header.e_entry,
            end: 0,
            is_linux: false,
            pvh_entry: None,
        };
        for program in SegmentTable::new(header.endianness, class, &table).iter() {
            match program.p_type {
                PT_LOAD if program.p_memsz > 0 => {
                    image.add_segment(&program, length, path)?;
                }
                PT_NOTE if program.p_filesz <= MAX_NOTES => {
                    let notes = part(program.p_offset, program.p_filesz)?;
                    let align = program.p_align.clamp(1, 8) as usize;
                    image.take_notes(NoteIterator::new(header.endianness, class, align, &notes));
                }
                _ => {}
            }
        }
        if !(HIGH_MEMORY..image.end).contains(&image.entry) {
            return Err(malformed("its entry point lies outside of it"));
        }
        Ok(image)
    }

    fn add_segment(
        &mut self,
        program: &ProgramHeader,
        length: u64,
        path: &Path,
    ) -> Result<(), KernelError> {
        let malformed = |what| KernelError::Malformed { path: path.to_owned(), what };
        let wraps = || malformed("a segment wraps around");
        let file_end = program.p_offset.checked_add(program.p_filesz).ok_or_else(wraps)?;
        if file_end > length {
            let path = path.to_owned();
            return Err(KernelError::Truncated { path, length, needed: file_end });
        }
        if program.p_memsz < program.p_filesz {
            return Err(malformed("a segment is larger in the file than in memory"));
        }
        if program.p_paddr < HIGH_MEMORY {
            return Err(malformed("a segment lies in the first MiB"));
        }
        let end = program.p_paddr.checked_add(program.p_memsz).ok_or_else(wraps)?;
        self.end = self.end.max(end);
        self.segments.push(Segment {
            offset: program.p_offset,
            in_file: program.p_filesz,
            address: program.p_paddr,
        });
        Ok(())
    }

    fn take_notes(&mut self, notes: NoteIterator<'_, AnyEndian>) {
        for note in notes {
            let Note::Unknown(note) = note else { continue };
            if note.name == LINUX {
                self.is_linux = true;
            }
            // 4 bytes, or 8 as Linux has them.
            if note.name == XEN
                && note.n_type == PHYS32_ENTRY
                && let Some(entry) = note.desc.first_chunk()
            {
                self.pvh_entry = Some(u32::from_le_bytes(*entry).into());
            }
        }
    }
}
