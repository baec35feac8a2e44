use linux_loader::loader::bootparam::boot_params;
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};

use super::*;
use crate::boot::layout::{BOOT_INFO, HIGH_MEMORY};
use crate::boot::memory_map::{MemoryRange, RAM, RESERVED};
use crate::memory::{self, HOLE_END};

fn kernel(end: u64) -> Kernel {
    Kernel::with_end(end)
}

fn prepare(
    ram: &GuestRam,
    kernel: &Kernel,
    cmdline: &str,
    initrd: &[InitrdPart],
    acpi: Option<u64>,
) -> Result<(), BootError> {
    super::prepare(ram, kernel, &Information { cmdline, initrd, acpi, reserved: &[] })
}

fn params(ram: &GuestRam) -> boot_params {
    ram.read_obj(GuestAddress(BOOT_INFO)).unwrap()
}

#[test]
fn the_zero_page_tells_of_memory_command_line_and_initrd() {
    let ram = memory::allocate(64 << 20).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("initrd");
    std::fs::write(&path, b"first").unwrap();
    let initrd = [InitrdPart::File(path), InitrdPart::Bytes(b"second".to_vec().into())];
    prepare(&ram, &kernel(0x200_0000), "console=ttyS0", &initrd, Some(0xe0000)).unwrap();

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
    assert_eq!(({ last.addr }, { last.size }, { last.r#type }), (HIGH_MEMORY, 63 << 20, RAM));
}

#[test]
fn the_memory_map_leaves_the_hole_out() {
    let map = memory_map(6 << 30, &[(0xe000_0000, 0x1000_0000)]);
    let range = |start, length, kind| MemoryRange { start, length, kind };
    assert_eq!(map[2], range(HIGH_MEMORY, HOLE_START - HIGH_MEMORY, RAM));
    assert_eq!(map[3], range(HOLE_END, 3 << 30, RAM));
    assert_eq!(map[4], range(0xe000_0000, 0x1000_0000, RESERVED));
    let mut sorted = map.clone();
    sorted.sort_unstable_by_key(|range| range.start);
    assert!(sorted.windows(2).all(|pair| pair[0].start + pair[0].length <= pair[1].start));
}

#[test]
fn what_does_not_fit_is_named() {
    let ram = memory::allocate(64 << 20).unwrap();
    let prepare = |end, cmdline: &str, initrd| {
        prepare(&ram, &kernel(end), cmdline, initrd, None).unwrap_err().to_string()
    };
    let long = "x".repeat(2048);
    assert!(prepare(0x200_0000, &long, &[]).starts_with("cmdline: 2048 bytes is too long"));
    let large = [InitrdPart::Bytes(vec![1; 33 << 20].into())];
    assert!(prepare(0x200_0000, "", &large).starts_with("memory: an initrd of 33 MiB"));
    let missing = [InitrdPart::File("/no/such/initrd".into())];
    assert!(prepare(0x200_0000, "", &missing).contains("/no/such/initrd"));
    let folder = [InitrdPart::File("/".into())];
    assert!(prepare(0x200_0000, "", &folder).starts_with("cannot read initrd /"));
}

#[test]
fn an_initrd_stays_below_what_the_kernel_takes() {
    let ram = memory::allocate((3 << 30) + (64 << 20)).unwrap();
    let initrd = [InitrdPart::Bytes(vec![1; 5000].into())];
    prepare(&ram, &kernel(0x200_0000), "", &initrd, None).unwrap();
    assert_eq!({ params(&ram).hdr.ramdisk_image }, 0x8000_0000 - 8192);
    memory::release(&ram);
}

#[test]
fn a_pvh_guest_finds_memory_command_line_and_one_module() {
    let ram = memory::allocate(64 << 20).unwrap();
    let mut kernel = kernel(0x200_0000);
    kernel.protocol = Protocol::Pvh;
    let initrd = [InitrdPart::Bytes(vec![1; 6].into()), InitrdPart::Bytes(vec![2; 3].into())];
    prepare(&ram, &kernel, "words", &initrd, Some(0xe0000)).unwrap();
    let info: hvm_start_info = ram.read_obj(GuestAddress(BOOT_INFO)).unwrap();
    assert_eq!((info.magic, info.version, info.nr_modules), (XEN_HVM_START_MAGIC_VALUE, 1, 1));
    assert_eq!((info.cmdline_paddr, info.rsdp_paddr), (CMDLINE, 0xe0000));
    let module: hvm_modlist_entry = ram.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
    assert_eq!((module.paddr, module.size), ((64 << 20) - 4096, 11));
    assert_eq!(info.memmap_entries, 3);
    let last = info.memmap_paddr + 2 * size_of::<hvm_memmap_table_entry>() as u64;
    let last: hvm_memmap_table_entry = ram.read_obj(GuestAddress(last)).unwrap();
    assert_eq!((last.addr, last.size, last.type_), (HIGH_MEMORY, 63 << 20, RAM));
    let registers = cpu_state::general_registers(&kernel);
    assert_eq!((registers.rip, registers.rbx), (HIGH_MEMORY, BOOT_INFO));
}

#[test]
fn a_multiboot_kernel_finds_memory_command_line_and_every_module() {
    let ram = memory::allocate(64 << 20).unwrap();
    let mut kernel = kernel(0x200_0000);
    kernel.protocol = Protocol::Multiboot;
    let initrd = [InitrdPart::Bytes(vec![1; 6].into()), InitrdPart::Bytes(vec![2; 3].into())];
    prepare(&ram, &kernel, "words", &initrd, None).unwrap();
    let word = |at: u64| ram.read_obj::<u32>(GuestAddress(at)).unwrap();
    let field = |at: u64| word(BOOT_INFO + at);
    assert_eq!(field(0), 0b10_0100_1101);
    assert_eq!((field(4), field(8)), (639, 63 << 10), "KiB of lower and upper memory");
    let mut words = [0; 7];
    ram.read_slice(&mut words, GuestAddress(field(16).into())).unwrap();
    assert_eq!(&words, b" words\0", "behind the name, which is empty here");
    assert_eq!(field(20), 2);
    for (index, (length, byte)) in [(6, 1), (3, 2)].into_iter().enumerate() {
        let entry = u64::from(field(24)) + 16 * index as u64;
        let (start, end) = (word(entry), word(entry + 4));
        assert_eq!((start % 4096, end - start), (0, length));
        assert_eq!(ram.read_obj::<u8>(GuestAddress(start.into())).unwrap(), byte);
    }
    assert_eq!(field(44), 3 * 24);
    let last = u64::from(field(48)) + 2 * 24;
    assert_eq!((word(last), word(last + 4), word(last + 12)), (20, 1 << 20, 63 << 20));
    let registers = cpu_state::general_registers(&kernel);
    assert_eq!((registers.rax, registers.rbx), (0x2bad_b002, BOOT_INFO));
    let many = vec![InitrdPart::Bytes(vec![].into()); multiboot::MAX_MODULES + 1];
    assert!(matches!(
        prepare(&ram, &kernel, "", &many, None),
        Err(BootError::TooManyModules { .. })
    ));
}
