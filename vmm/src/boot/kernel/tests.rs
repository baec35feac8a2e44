use std::io::Write;

use elf::abi::{EM_386, EM_X86_64, ET_EXEC, PT_NOTE};
use linux_loader::elf::{Elf64_Ehdr, Elf64_Phdr, PT_LOAD};
use vm_memory::ByteValued;

use super::*;
use crate::memory;

/// An ELF executable with one segment of `content` at `address`, and zeroes after it.
fn elf(machine: u16, address: u64, content: &[u8], in_memory: u64) -> Vec<u8> {
    let header_size = size_of::<Elf64_Ehdr>() as u16;
    let mut header = Elf64_Ehdr {
        e_type: ET_EXEC,
        e_machine: machine,
        e_entry: address,
        e_phoff: header_size.into(),
        e_ehsize: header_size,
        e_phentsize: size_of::<Elf64_Phdr>() as u16,
        e_phnum: 1,
        ..Elf64_Ehdr::default()
    };
    header.e_ident[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let program = Elf64_Phdr {
        p_type: PT_LOAD,
        p_offset: (size_of::<Elf64_Ehdr>() + size_of::<Elf64_Phdr>()) as u64,
        p_paddr: address,
        p_filesz: content.len() as u64,
        p_memsz: in_memory,
        ..Elf64_Phdr::default()
    };
    [header.as_slice(), program.as_slice(), content].concat()
}

/// [`elf`] with a program header of notes behind it.
fn with_notes(mut image: Vec<u8>, notes: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (owner, kind, data) in notes {
        for field in [owner.len() as u32 + 1, data.len() as u32, *kind] {
            content.extend(field.to_le_bytes());
        }
        for part in [owner.as_bytes(), b"\0", data] {
            content.extend(part);
            if part != owner.as_bytes() {
                content.resize(content.len().next_multiple_of(4), 0);
            }
        }
    }
    let inserted = size_of::<Elf64_Phdr>() as u64;
    let first = size_of::<Elf64_Ehdr>();
    let second = first + size_of::<Elf64_Phdr>();
    // The first one's content moves.
    let offset = u64::from_le_bytes(image[first + 8..first + 16].try_into().unwrap());
    image[first + 8..first + 16].copy_from_slice(&(offset + inserted).to_le_bytes());
    image[56] = 2; // e_phnum
    let program = Elf64_Phdr {
        p_type: PT_NOTE,
        p_offset: image.len() as u64 + inserted,
        p_filesz: content.len() as u64,
        p_align: 4,
        ..Elf64_Phdr::default()
    };
    image.splice(second..second, program.as_slice().iter().copied());
    image.extend(content);
    image
}

/// An i386 executable, likewise with one segment.
fn elf32(address: u32, content: &[u8]) -> Vec<u8> {
    let mut image = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |image: &mut Vec<u8>, fields: &[u16]| {
        fields.iter().for_each(|field| image.extend(field.to_le_bytes()));
    };
    let word = |image: &mut Vec<u8>, fields: &[u32]| {
        fields.iter().for_each(|field| image.extend(field.to_le_bytes()));
    };
    half(&mut image, &[ET_EXEC, EM_386]);
    word(&mut image, &[1, address, 52, 0, 0]);
    half(&mut image, &[52, 32, 1, 0, 0, 0]);
    let length = content.len() as u32;
    word(&mut image, &[PT_LOAD, 84, address, address, length, length + 16, 7, 4096]);
    image.extend(content);
    image
}

/// A multiboot header without addresses.
const MULTIBOOT: [u8; 12] = {
    let [a, b, c, d] = 0x1bad_b002_u32.to_le_bytes();
    let [e, f, g, h] = 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(3).to_le_bytes();
    [a, b, c, d, 3, 0, 0, 0, e, f, g, h]
};

/// A bzImage with one setup sector and `payload` right behind it.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let header = setup_header {
        setup_sects: 1,
        boot_flag: 0xaa55,
        jump: 0x6aeb,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x20f,
        xloadflags: 1,
        payload_offset: 0,
        payload_length: payload.len() as u32,
        initrd_addr_max: 0x7fff_ffff,
        cmdline_size: 2047,
        ..setup_header::default()
    };
    image[BzImage::START..BzImage::END].copy_from_slice(header.as_slice());
    image.extend_from_slice(payload);
    image
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, content: &[u8]) -> Result<Kernel, KernelError> {
        let path = self.0.path().join("kernel");
        std::fs::write(&path, content).unwrap();
        let cache = KernelCache::new(Some(self.0.path().join("cache")));
        Kernel::open(&path, cache.as_ref())
    }
}

#[test]
fn a_vmlinux_is_loaded_where_it_wants_to_be() {
    let kernel = Files::new().open(&elf(EM_X86_64, 0x100_0000, b"startup", 0x2000)).unwrap();
    assert_eq!((kernel.entry, kernel.end), (0x100_0000, 0x100_2000));
    assert!(kernel.setup_header.is_none());
    let ram = memory::allocate(32 << 20).unwrap();
    kernel.load(&ram).unwrap();
    let mut content = [0xff; 8];
    ram.read_slice(&mut content, GuestAddress(0x100_0000)).unwrap();
    assert_eq!(&content, b"startup\0");
}

#[test]
fn a_bzimage_is_decompressed_once() {
    let files = Files::new();
    let image = bzimage(&gzip(&elf(EM_X86_64, 0x100_0000, b"startup", 0x2000)));
    let kernel = files.open(&image).unwrap();
    assert_eq!(kernel.entry, 0x100_0000);
    assert_eq!({ kernel.setup_header.unwrap().version }, 0x20f);

    // Without the payload only the cache can still know the kernel.
    let path = files.0.path().join("kernel");
    let cache = KernelCache::new(Some(files.0.path().join("cache"))).unwrap();
    assert!(cache.find(&File::open(&path).unwrap()).is_some());
    assert_eq!(Kernel::open(&path, Some(&cache)).unwrap().entry, 0x100_0000);
    assert_eq!(Kernel::open(&path, None).unwrap().entry, 0x100_0000);
}

#[test]
fn a_damaged_cache_is_repaired() {
    let files = Files::new();
    let image = bzimage(&gzip(&elf(EM_X86_64, 0x100_0000, b"startup", 0x2000)));
    files.open(&image).unwrap();
    for entry in std::fs::read_dir(files.0.path().join("cache")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"\x7fELF").unwrap();
        }
    }
    let cache = KernelCache::new(Some(files.0.path().join("cache")));
    let kernel = Kernel::open(&files.0.path().join("kernel"), cache.as_ref()).unwrap();
    assert_eq!(kernel.entry, 0x100_0000);
}

#[test]
fn bad_kernels_are_told_apart() {
    let files = Files::new();
    let error = |content: &[u8]| files.open(content).unwrap_err();
    assert!(matches!(error(b""), KernelError::NotAKernel { .. }));
    assert!(matches!(error(&[0; 10_000]), KernelError::NotAKernel { .. }));
    assert!(matches!(error(b"\x7fELF"), KernelError::Truncated { .. }));

    let good = elf(EM_X86_64, 0x100_0000, &[7; 1000], 1000);
    assert!(matches!(error(&good[..good.len() - 1]), KernelError::Truncated { .. }));
    assert!(matches!(error(&good[..70]), KernelError::Truncated { .. }));
    let arm = error(&elf(183, 0x100_0000, b"x", 1));
    assert!(arm.to_string().contains("for another machine (ELF machine 183, class 2)"), "{arm}");
    let big_segment = elf(EM_X86_64, 0x100_0000, &[7; 10], 9);
    assert!(matches!(error(&big_segment), KernelError::Malformed { .. }));
    assert!(matches!(error(&elf(EM_X86_64, 0x1000, b"x", 1)), KernelError::Malformed { .. }));
    assert!(matches!(error(&elf(EM_X86_64, u64::MAX, b"x", 2)), KernelError::Malformed { .. }));

    let image = bzimage(&gzip(&good));
    assert!(matches!(error(&image[..image.len() - 9]), KernelError::Truncated { .. }));
    assert!(matches!(error(&image[..0x230]), KernelError::Truncated { .. }));
    let mut garbled = image.clone();
    garbled[1024 + 20..1024 + 40].fill(0xff);
    assert!(matches!(error(&garbled), KernelError::Decompress { .. }));
    let bzip2 = error(&bzimage(b"BZh91AY"));
    let source = std::error::Error::source(&bzip2).unwrap().to_string();
    assert_eq!(source, "bzip2 is not supported");
    assert!(matches!(error(&bzimage(b"????")), KernelError::Malformed { .. }));
    let mut old = image.clone();
    old[0x206..0x208].copy_from_slice(&[0x01, 0x02]);
    assert!(error(&old).to_string().contains("boot protocol 2.01"));
    let mut ipxe = image;
    ipxe[0x206] = 0x07;
    assert!(error(&ipxe).to_string().contains("needs a BIOS"));

    assert!(matches!(error(&elf32(0x10_0000, b"x")), KernelError::NoProtocol { .. }));
    for (content, name) in [
        (&b"MZ\x90\0"[..], "an EFI application"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"\xfd7zXZ\0", "an xz file"),
        (b"\0\0\0\0\0\0\0\0\xd6\x50\x52\xe8\0\0\0\0", "a multiboot2 image"),
    ] {
        assert!(error(content).to_string().contains(name), "{name}");
    }

    let missing = Kernel::open(Path::new("/no/such/kernel"), None).unwrap_err();
    assert!(missing.to_string().contains("/no/such/kernel"));
    assert!(matches!(Kernel::open(Path::new("/"), None), Err(KernelError::Read { .. })));
}

#[test]
fn a_kernel_larger_than_ram_names_memory() {
    let kernel = Files::new().open(&elf(EM_X86_64, 0x100_0000, b"x", 64 << 20)).unwrap();
    let error = kernel.load(&memory::allocate(32 << 20).unwrap()).unwrap_err();
    assert!(matches!(error, KernelError::TooLarge { .. }));
    assert!(error.to_string().starts_with("memory: "), "{error}");
}

#[test]
fn no_prefix_of_a_kernel_panics() {
    let files = Files::new();
    let image = bzimage(&gzip(&elf(EM_X86_64, 0x100_0000, &[7; 100], 100)));
    for length in 0..image.len() {
        assert!(files.open(&image[..length]).is_err(), "{length}");
    }
}

#[test]
fn an_elf_is_started_by_the_protocol_that_it_offers() {
    let files = Files::new();
    let plain = elf(EM_X86_64, 0x100_0000, &[7; 64], 64);
    let xen: (&str, u32, &[u8]) = ("Xen", 18, &[0x10, 0, 0, 1, 0, 0, 0, 0]);
    let linux: (&str, u32, &[u8]) = ("Linux", 257, &[0]);
    let other: (&str, u32, &[u8]) = ("Xen", 6, b"free");
    let bootable = [&MULTIBOOT[..], &[0x90; 52]].concat();
    for (image, protocol, entry) in [
        (plain.clone(), Protocol::Linux64, 0x100_0000),
        (with_notes(plain.clone(), &[other]), Protocol::Linux64, 0x100_0000),
        (with_notes(plain.clone(), &[other, xen]), Protocol::Pvh, 0x100_0010),
        (with_notes(plain, &[linux, xen]), Protocol::Linux64, 0x100_0000),
        (elf(EM_X86_64, 0x100_0000, &bootable, 64), Protocol::Multiboot, 0x100_0000),
        (elf32(0x40_0000, &bootable), Protocol::Multiboot, 0x40_0000),
    ] {
        let kernel = files.open(&image).unwrap();
        assert_eq!((kernel.protocol, kernel.entry), (protocol, entry));
    }
    let outside: (&str, u32, &[u8]) = ("Xen", 18, &[0, 0, 0, 2]);
    let image = with_notes(elf(EM_X86_64, 0x100_0000, &[7; 64], 64), &[outside]);
    assert!(matches!(files.open(&image), Err(KernelError::Malformed { .. })));
}

#[test]
fn a_bzimage_without_a_64_bit_kernel_unpacks_itself() {
    let files = Files::new();
    let mut image = bzimage(b"anything");
    let at = |field: usize| BzImage::START + field;
    image[at(0x20)] = 1; // loadflags: loaded high
    image[at(0x23)..at(0x27)].copy_from_slice(&0x10_0000u32.to_le_bytes()); // code32_start
    image[at(0x45)] = 0; // xloadflags
    image[at(0x67)..at(0x6f)].copy_from_slice(&0x100_0000u64.to_le_bytes()); // pref_address
    image[at(0x6f)..at(0x73)].copy_from_slice(&0x1000u32.to_le_bytes()); // init_size
    let kernel = files.open(&image).unwrap();
    assert_eq!(kernel.protocol, Protocol::Linux32);
    assert_eq!((kernel.entry, kernel.end), (0x10_0000, 0x100_1000));
    let ram = memory::allocate(32 << 20).unwrap();
    kernel.load(&ram).unwrap();
    let mut content = [0; 8];
    ram.read_slice(&mut content, GuestAddress(0x10_0000)).unwrap();
    assert_eq!(&content, b"anything");
    assert!(files.open(&image[..1024]).is_err(), "there is no code");

    // memtest86+ has a 64-bit entry, and no payload.
    image[at(0x45)] = 1;
    image[at(0x5b)..at(0x5f)].fill(0); // payload_length
    assert_eq!(files.open(&image).unwrap().protocol, Protocol::Linux32);
}
