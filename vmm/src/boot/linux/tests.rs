use super::*;
use crate::boot::kernel::Kernel;
use crate::memory::HOLE_END;

fn kernel(end: u64) -> Kernel {
    Kernel::with_end(end)
}

fn params(ram: &GuestRam) -> boot_params {
    ram.read_obj(GuestAddress(ZERO_PAGE)).unwrap()
}

#[test]
fn the_zero_page_tells_of_memory_command_line_and_initrd() {
    let ram = memory::allocate(64 << 20).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("initrd");
    std::fs::write(&path, b"first").unwrap();
    let initrd = [InitrdPart::File(path), InitrdPart::Bytes(b"second".to_vec())];
    prepare(&ram, &kernel(0x200_0000), "console=ttyS0", &initrd, Some(0xe0000), &[]).unwrap();

    let params = params(&ram);
    assert_eq!({ params.acpi_rsdp_addr }, 0xe0000);
    assert_eq!({ params.hdr.cmd_line_ptr }, CMDLINE as u32);
    let mut cmdline = [0xff; 14];
    ram.read_slice(&mut cmdline, GuestAddress(CMDLINE)).unwrap();
    assert_eq!(&cmdline, b"console=ttyS0\0");

    // "first" is padded to 8 bytes.
    assert_eq!({ params.hdr.ramdisk_size }, 14);
    let address = params.hdr.ramdisk_image;
    assert_eq!(address, (64 << 20) - 4096);
    let mut content = [0xff; 14];
    ram.read_slice(&mut content, GuestAddress(address.into())).unwrap();
    assert_eq!(&content, b"first\0\0\0second");

    assert_eq!(params.e820_entries, 3);
    let last = params.e820_table[2];
    assert_eq!(({ last.addr }, { last.size }, { last.r#type }), (HIGH_MEMORY, 63 << 20, E820_RAM));
}

#[test]
fn the_memory_map_leaves_the_hole_out() {
    let map = memory_map(6 << 30, &[(0xe000_0000, 0x1000_0000)]);
    assert_eq!(map[2], (HIGH_MEMORY, HOLE_START - HIGH_MEMORY, E820_RAM));
    assert_eq!(map[3], (HOLE_END, 3 << 30, E820_RAM));
    assert_eq!(map[4], (0xe000_0000, 0x1000_0000, E820_RESERVED));
    let mut sorted = map.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
}

#[test]
fn what_does_not_fit_is_named() {
    let ram = memory::allocate(64 << 20).unwrap();
    let prepare = |end, cmdline: &str, initrd| {
        prepare(&ram, &kernel(end), cmdline, initrd, None, &[]).unwrap_err().to_string()
    };
    let long = "x".repeat(2048);
    assert!(prepare(0x200_0000, &long, &[]).starts_with("cmdline: 2048 bytes is too long"));
    let large = [InitrdPart::Bytes(vec![1; 33 << 20])];
    assert!(prepare(0x200_0000, "", &large).starts_with("memory: an initrd of 33 MiB"));
    let missing = [InitrdPart::File("/no/such/initrd".into())];
    assert!(prepare(0x200_0000, "", &missing).contains("/no/such/initrd"));
    let folder = [InitrdPart::File("/".into())];
    assert!(prepare(0x200_0000, "", &folder).starts_with("cannot read initrd /"));
}

#[test]
fn an_initrd_stays_below_what_the_kernel_takes() {
    let ram = memory::allocate((3 << 30) + (64 << 20)).unwrap();
    let initrd = [InitrdPart::Bytes(vec![1; 5000])];
    prepare(&ram, &kernel(0x200_0000), "", &initrd, None, &[]).unwrap();
    assert_eq!({ params(&ram).hdr.ramdisk_image }, 0x8000_0000 - 8192);
    memory::release(&ram);
}

#[test]
fn segments_follow_from_their_descriptors() {
    let code = segment(CODE_SELECTOR, CODE_DESCRIPTOR);
    assert_eq!((code.type_, code.s, code.present, code.l, code.db, code.g), (0xb, 1, 1, 1, 0, 1));
    let data = segment(DATA_SELECTOR, DATA_DESCRIPTOR);
    assert_eq!((data.type_, data.s, data.present, data.l, data.db, data.g), (3, 1, 1, 0, 1, 1));
}

#[test]
fn the_page_tables_map_the_first_gib_to_itself() {
    let ram = memory::allocate(16 << 20).unwrap();
    write_page_tables(&ram).unwrap();
    let walk = |address: u64| {
        let entry = |table: u64, index: u64| -> u64 {
            ram.read_obj(GuestAddress((table & !0xfff) + (index & 511) * 8)).unwrap()
        };
        let page = entry(entry(entry(PML4, address >> 39), address >> 30), address >> 21);
        (page & !0x1f_ffff) + (address & 0x1f_ffff)
    };
    for address in [0, ZERO_PAGE, 0x100_0000, 0x3fff_ffff] {
        assert_eq!(walk(address), address);
    }
}
