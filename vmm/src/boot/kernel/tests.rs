use std::io::Write;

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

/// A bzImage with one setup sector and `payload` right behind it.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let header = setup_header {
        setup_sects: 1,
        boot_flag: 0xaa55,
        jump: 0x6aeb,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x20f,
        payload_offset: 0,
        payload_length: payload.len() as u32,
        initrd_addr_max: 0x7fff_ffff,
        cmdline_size: 2047,
        ..setup_header::default()
    };
    image[SetupHeader::START..SetupHeader::END].copy_from_slice(header.as_slice());
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
    let mut old = image;
    old[0x206] = 0x07;
    assert!(error(&old).to_string().contains("boot protocol 2.07"));

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
