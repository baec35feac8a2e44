//! ACPI tables (ACPI 6.5): RSDP → XSDT → FADT (→ DSDT, FACS), MADT, and what devices add.

use acpi_tables::aml::{self, EISAName, IO, Interrupt, Name, Package, ResourceTemplate};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{ACPI, ACPI_MAX, IO_APIC, LOCAL_APIC};
use crate::chipset::{acpi_pm, cmos_rtc, i8042, reset, uart};
use crate::memory::GuestRam;

/// Who made the tables.
pub const OEM_ID: [u8; 6] = *b"ISOLAB";
/// OEM Table ID of every table's header (ACPI 6.5, 5.2.6).
pub const OEM_TABLE_ID: [u8; 8] = *b"ISOLABVM";
/// OEM Revision of every table's header.
pub const OEM_REVISION: u32 = 1;

/// What the tables tell of.
pub struct Description<'a> {
    /// Virtual CPUs; APIC ids are 0 to cpus - 1.
    pub cpus: u32,
    /// Which of COM1 to COM4 exist.
    pub serial: [bool; 4],
    /// What the board adds.
    pub board: &'a BoardTables,
}

/// What a board has the tables say.
#[derive(Clone, Debug, Default)]
pub struct BoardTables {
    /// That there are a PM timer, a keyboard controller and a CMOS clock to be probed.
    pub legacy: bool,
    /// ISA interrupts besides the SCI that are level-triggered, active high: PCI's INTx.
    pub level_interrupts: &'static [u8],
    /// AML for the DSDT, outside of any scope: PCI host bridges and the like.
    pub definitions: Vec<u8>,
    /// Whole further tables (MCFG …).
    pub tables: Vec<Vec<u8>>,
}

/// Tables that could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// Devices added more than there is room for.
    #[error("the ACPI tables need {0} bytes; there is room for {ACPI_MAX}")]
    TooLarge(usize),
    /// The place is RAM in every valid configuration.
    #[error("cannot write the ACPI tables to guest memory")]
    Guest(#[from] GuestMemoryError),
}

/// Writes all tables to guest memory and returns the RSDP's address.
///
/// # Errors
/// [`AcpiError`].
pub fn write(ram: &GuestRam, description: &Description<'_>) -> Result<u64, AcpiError> {
    let image = build(description);
    if image.len() as u64 > ACPI_MAX {
        return Err(AcpiError::TooLarge(image.len()));
    }
    ram.write_slice(&image, GuestAddress(ACPI))?;
    Ok(ACPI)
}

/// All tables as they lie in memory from [`ACPI`] on.
fn build(description: &Description<'_>) -> Vec<u8> {
    // The RSDP comes first, where firmware would have it, but points to the XSDT, made last.
    let mut image = vec![0; Rsdp::len()];
    let facs = place(&mut image, &bytes(&FACS::new()));
    let dsdt = place(&mut image, &dsdt(description));
    let mut entries = vec![
        place(&mut image, &fadt(description, dsdt, facs)),
        place(&mut image, &madt(description)),
    ];
    entries.extend(description.board.tables.iter().map(|table| place(&mut image, table)));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    entries.into_iter().for_each(|entry| xsdt.add_entry(entry));
    let xsdt = place(&mut image, &bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
    image[..rsdp.len()].copy_from_slice(&rsdp);
    image
}

/// Appends a table and returns its guest-physical address. The FACS needs 64-byte alignment.
fn place(image: &mut Vec<u8>, table: &[u8]) -> u64 {
    image.resize(image.len().next_multiple_of(64), 0);
    let address = ACPI + image.len() as u64;
    image.extend_from_slice(table);
    address
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Fixed ACPI description table (5.2.9).
fn fadt(description: &Description<'_>, dsdt: u64, facs: u64) -> Vec<u8> {
    const LEGACY_DEVICES: u16 = 1 << 0;
    const HAS_8042: u16 = 1 << 1;
    const NO_VGA: u16 = 1 << 2;
    const NO_RTC: u16 = 1 << 5;
    let legacy = description.board.legacy;
    let io = |address: u16, bits: u8, access| {
        GAS::new(AddressSpace::SystemIo, bits, 0, access, address.into())
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_32(dsdt as u32)
        .firmware_ctrl_32(facs as u32)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton) // No sleep button; the power button is a fixed one.
        .flag(Flags::ResetRegSup);
    fadt.sci_int = (acpi_pm::SCI as u16).into();
    fadt.pm1a_evt_blk = u32::from(acpi_pm::EVENT_BLOCK).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = io(acpi_pm::EVENT_BLOCK, 32, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(acpi_pm::CONTROL_BLOCK).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = io(acpi_pm::CONTROL_BLOCK, 16, AccessSize::WordAccess);
    if legacy {
        fadt = fadt.flag(Flags::TmrValExt);
        fadt.pm_tmr_blk = u32::from(acpi_pm::TIMER_BLOCK).into();
        fadt.pm_tmr_len = 4;
        fadt.x_pm_tmr_blk = io(acpi_pm::TIMER_BLOCK, 32, AccessSize::DwordAccess);
    }
    // Longer latencies than these mean that C2 and C3 do not exist.
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    fadt.century = 0x32;
    fadt.reset_reg = io(reset::PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = reset::HARD_RESET;
    // A paravirtual guest has its time from kvmclock. Told so, Linux does not spend hundreds of
    // exits on probing the keyboard controller and the clock.
    let probed = if legacy { HAS_8042 } else { NO_RTC };
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | probed).into();
    bytes(&fadt.finalize())
}

/// Multiple APIC description table (5.2.12).
fn madt(description: &Description<'_>) -> Vec<u8> {
    const PCAT_COMPATIBLE: u32 = 1;
    const ENABLED: u32 = 1;
    const ACTIVE_HIGH_LEVEL: u16 = 0x0d;
    const ALL_PROCESSORS: u8 = 0xff;
    let mut madt = Sdt::new(*b"APIC", 36, 4, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.append(LOCAL_APIC);
    madt.append(PCAT_COMPATIBLE);
    for cpu in 0..description.cpus as u8 {
        madt.append_slice(&[0, 8, cpu, cpu]);
        madt.append(ENABLED);
    }
    madt.append_slice(&[1, 12, 0, 0]);
    madt.append(IO_APIC);
    madt.append(0u32); // First global system interrupt.
    for &irq in [acpi_pm::SCI as u8].iter().chain(description.board.level_interrupts) {
        madt.append_slice(&[2, 10, 0, irq]);
        madt.append(u32::from(irq));
        madt.append(ACTIVE_HIGH_LEVEL);
    }
    // Local APIC NMI on LINT1, which is how the vCPUs are set up.
    madt.append_slice(&[4, 6, ALL_PROCESSORS, 0, 0, 1]);
    madt.as_slice().to_vec()
}

/// Differentiated system description table: devices that cannot be found by asking.
fn dsdt(description: &Description<'_>) -> Vec<u8> {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let zero = aml::ZERO;
    let sleep_type = acpi_pm::SLEEP_TYPE_S5;
    // Soft-off: PM1a and PM1b sleep types (7.4.2.6).
    let s5 = Package::new(vec![&sleep_type, &sleep_type, &zero, &zero]);
    dsdt.append_slice(&bytes(&Name::new("_S5_".into(), &s5)));

    let mut devices = Vec::new();
    for (index, place) in uart::COM.iter().enumerate() {
        if description.serial[index] {
            let name = format!("COM{}", index + 1);
            let io = IO::new(place.port, place.port, 1, uart::PORTS as u8);
            device(&mut devices, &name, "PNP0501", index as u8, &[&io], Some(place.irq));
        }
    }
    if description.board.legacy {
        let io = IO::new(cmos_rtc::PORT, cmos_rtc::PORT, 1, 2);
        device(&mut devices, "RTC_", "PNP0B00", 0, &[&io], Some(cmos_rtc::IRQ));
        let data = IO::new(i8042::DATA_PORT, i8042::DATA_PORT, 1, 1);
        let command = IO::new(i8042::COMMAND_PORT, i8042::COMMAND_PORT, 1, 1);
        device(&mut devices, "KBD_", "PNP0303", 0, &[&data, &command], Some(i8042::IRQ));
    }
    dsdt.append_slice(&aml::Scope::raw("\\_SB_".into(), devices));
    dsdt.append_slice(&description.board.definitions);
    dsdt.as_slice().to_vec()
}

/// Appends a device with a fixed id, ports and an ISA interrupt.
fn device(
    sink: &mut dyn AmlSink,
    name: &str,
    id: &str,
    unique: u8,
    ports: &[&dyn Aml],
    irq: Option<u32>,
) {
    let interrupt = irq.map(|irq| Interrupt::new(true, true, false, false, irq));
    let mut resources = ports.to_vec();
    resources.extend(interrupt.as_ref().map(|i| i as &dyn Aml));
    let resources = ResourceTemplate::new(resources);
    let id = EISAName::new(id);
    let hid = Name::new("_HID".into(), &id);
    let uid = Name::new("_UID".into(), &unique);
    let crs = Name::new("_CRS".into(), &resources);
    aml::Device::new(name.into(), vec![&hid, &uid, &crs]).to_aml_bytes(sink);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(legacy: bool) -> BoardTables {
        BoardTables { legacy, level_interrupts: &[10, 11], ..BoardTables::default() }
    }

    fn description(board: &BoardTables) -> Description<'_> {
        Description { cpus: 2, serial: [true, true, false, false], board }
    }

    fn u32_at(image: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap())
    }

    fn u64_at(image: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(image[offset..offset + 8].try_into().unwrap())
    }

    fn table(image: &[u8], address: u64) -> &[u8] {
        let start = (address - ACPI) as usize;
        let length = u32_at(image, start + 4) as usize;
        &image[start..start + length]
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn tables_are_linked_and_their_checksums_hold() {
        let extra = Sdt::new(*b"MCFG", 44, 1, OEM_ID, OEM_TABLE_ID, 1).as_slice().to_vec();
        let board = BoardTables { tables: vec![extra], ..board(true) };
        let image = build(&description(&board));
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!(sum(&image[..20]), 0);
        assert_eq!(sum(&image[..36]), 0);
        let xsdt = table(&image, u64_at(&image, 24));
        assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
        let names: Vec<_> = xsdt[36..]
            .chunks(8)
            .map(|entry| {
                let entry = table(&image, u64_at(entry, 0));
                assert_eq!(sum(entry), 0);
                entry[..4].to_vec()
            })
            .collect();
        assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
        let fadt = table(&image, u64_at(xsdt, 36));
        let facs = table(&image, u32_at(fadt, 36).into());
        assert_eq!(&facs[..4], b"FACS");
        let dsdt = table(&image, u32_at(fadt, 40).into());
        assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
    }

    #[test]
    fn every_cpu_has_a_local_apic() {
        let board = board(true);
        let madt = madt(&description(&board));
        let mut rest = &madt[44..];
        let mut types = Vec::new();
        while let [kind, length, ..] = *rest {
            types.push(kind);
            rest = &rest[usize::from(length)..];
        }
        assert_eq!(types, [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn a_paravirtual_guest_is_told_of_no_keyboard_and_no_pm_timer() {
        let (pc, paravirtual) = (board(true), board(false));
        let pc = description(&pc);
        let contains = |image: &[u8], name: &[u8]| image.windows(4).any(|w| w == name);
        assert!(contains(&dsdt(&pc), b"KBD_"));
        assert_ne!(fadt(&pc, 0, 0)[91], 0);
        let description = description(&paravirtual);
        assert!(!contains(&dsdt(&description), b"KBD_"));
        assert_eq!(fadt(&description, 0, 0)[91], 0);
        assert!(contains(&dsdt(&description), b"COM2"));
        assert!(!contains(&dsdt(&description), b"COM3"));
    }
}
