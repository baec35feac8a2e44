//! PCI bus 0: functions at their numbers, and their BARs on the machine's buses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::bar::{BarMapping, BarSpace};
use super::config_page::{DirectReads, PAGE};
use super::config_registers::{command, register};
use super::config_space::ConfigSpaceError;
use super::function::{PciFunction, SharedFunction};
use super::{IO_WINDOW, MEMORY_WINDOW};
use crate::bus::{Bus, BusDevice, SharedDevice};
use crate::poison::unpoisoned;

/// Devices on a bus.
pub const DEVICES: u8 = 32;
/// Functions of a device.
pub const FUNCTIONS: u8 = 8;
/// BAR registers of a function.
const BARS: usize = 6;

/// Device and function number on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl Address {
    /// Where the function is in ECAM (PCI Express base specification, table 7-1).
    fn ecam_offset(self) -> u64 {
        (u64::from(self.device) * u64::from(FUNCTIONS) + u64::from(self.function)) * PAGE as u64
    }
}

/// A bus that cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum PciBusError {
    /// Out of range or taken.
    #[error("PCI: cannot place `{name}` at 00:{device:02x}.{function}: out of range or taken")]
    BadAddress {
        /// The function's name in statistics.
        name: &'static str,
        /// Device number.
        device: u8,
        /// Function number.
        function: u8,
    },
    /// All device numbers are taken.
    #[error("PCI: no free slot for `{name}`: the bus holds {DEVICES} devices")]
    Full {
        /// The function's name in statistics.
        name: &'static str,
    },
    /// The windows are too small.
    #[error("PCI: no room for BAR {bar} of `{name}`, {size:#x} bytes")]
    NoRoom {
        /// The function's name in statistics.
        name: &'static str,
        /// Index of the BAR, 0 to 5.
        bar: usize,
        /// Bytes that the BAR decodes.
        size: u64,
    },
    /// The function's own configuration space.
    #[error(transparent)]
    ConfigSpace(#[from] ConfigSpaceError),
}

struct Slot {
    name: &'static str,
    function: SharedFunction,
    /// The device that goes onto a bus for each BAR, and where it is now.
    bars: [Option<(SharedDevice, Option<BarMapping>)>; BARS],
    /// The guest reads configuration space without coming here.
    read_directly: bool,
}

/// Bus 0.
///
/// A BAR goes onto the port or memory bus where the guest programs it, if that range is free:
/// the chipset was there first and stays. A BAR over RAM is harmless, because accesses to RAM
/// never leave the guest. What collided is tried again whenever another BAR moves away.
pub struct PciBus {
    // This bus is on those, by its configuration ports, and would keep them alive.
    ports: Weak<Bus>,
    memory: Weak<Bus>,
    slots: BTreeMap<Address, Slot>,
    direct_reads: Option<Box<dyn DirectReads>>,
}

impl PciBus {
    /// An empty bus; BARs go onto `ports` and `memory`.
    pub fn new(ports: &Arc<Bus>, memory: &Arc<Bus>) -> Self {
        let (ports, memory) = (Arc::downgrade(ports), Arc::downgrade(memory));
        Self { ports, memory, slots: BTreeMap::new(), direct_reads: None }
    }

    /// Puts `function` at an address. Its BARs and capabilities must be complete; function 0 of
    /// a device with several functions must be marked so by its maker.
    ///
    /// # Errors
    /// [`PciBusError::BadAddress`].
    pub fn add(
        &mut self,
        address: Address,
        function: Arc<Mutex<impl PciFunction + 'static>>,
    ) -> Result<(), PciBusError> {
        let function: SharedFunction = function;
        let name = lock(&function).name();
        let Address { device, function: number } = address;
        let bad = PciBusError::BadAddress { name, device, function: number };
        if device >= DEVICES || number >= FUNCTIONS || self.slots.contains_key(&address) {
            return Err(bad);
        }
        let bars = std::array::from_fn(|index| {
            lock(&function).config().bar(index)?;
            let bar = BarAccess { function: Arc::clone(&function), index };
            Some((Arc::new(Mutex::new(bar)) as SharedDevice, None))
        });
        self.slots.insert(address, Slot { name, function, bars, read_directly: false });
        self.map_bars();
        Ok(())
    }

    /// The lowest device number with nothing at it.
    pub fn free_device(&self) -> Option<u8> {
        (0..DEVICES).find(|device| self.slots.keys().all(|a| a.device != *device))
    }

    /// Gives every BAR an address from [`IO_WINDOW`] or [`MEMORY_WINDOW`] and switches decoding
    /// on, as firmware would; for machines that start without any. Call it once, when all
    /// functions are there.
    ///
    /// # Errors
    /// [`PciBusError::NoRoom`].
    pub fn assign_addresses(&mut self) -> Result<(), PciBusError> {
        let mut next_port = IO_WINDOW.start;
        let mut next_memory = MEMORY_WINDOW.start;
        for slot in self.slots.values() {
            let mut function = lock(&slot.function);
            let config = function.config_mut();
            let mut decoded = 0;
            for bar in 0..BARS {
                let Some((kind, size)) = config.bar(bar) else { continue };
                let (next, end, enable) = match kind.space() {
                    BarSpace::Io => (&mut next_port, IO_WINDOW.end, command::IO),
                    BarSpace::Memory => (&mut next_memory, MEMORY_WINDOW.end, command::MEMORY),
                };
                let no_room = PciBusError::NoRoom { name: slot.name, bar, size };
                // A page each, so that no two devices share one.
                let alignment = if enable == command::MEMORY { size.max(0x1000) } else { size };
                let start = next.next_multiple_of(alignment);
                if start.checked_add(size).is_none_or(|e| e > end) {
                    return Err(no_room);
                }
                *next = start + size;
                config.set_bar_address(bar, start);
                decoded |= enable;
            }
            let command = config.command() | decoded;
            config.write(register::COMMAND.into(), &command.to_le_bytes());
        }
        self.map_bars();
        Ok(())
    }

    /// From now on the guest reads in ECAM what is stored, wherever that is all there is to it. Call
    /// it once, when all functions are there.
    pub fn read_directly(&mut self, direct_reads: impl DirectReads + 'static) {
        self.direct_reads = Some(Box::new(direct_reads));
        let addresses: Vec<Address> = self.slots.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.settle_reads(address));
    }

    /// A function may have begun or ceased to read as it is stored.
    fn settle_reads(&mut self, address: Address) {
        let (Some(direct), Some(slot)) = (&mut self.direct_reads, self.slots.get_mut(&address))
        else {
            return;
        };
        let function = lock(&slot.function);
        let wanted = function.reads_as_stored();
        match (slot.read_directly, wanted) {
            (false, true) => direct.show(address.ecam_offset(), function.config().page()),
            (true, false) => direct.hide(address.ecam_offset()),
            _ => {}
        }
        slot.read_directly = wanted;
    }

    /// Takes away all functions and their BARs, from a guest that no longer runs.
    pub fn clear(&mut self) {
        for slot in std::mem::take(&mut self.slots).into_values() {
            for (_, mapped) in slot.bars.into_iter().flatten() {
                if let Some(BarMapping { space, address, .. }) = mapped
                    && let Some(bus) = self.bus(space)
                {
                    bus.remove(address);
                }
            }
        }
    }

    /// `None` once the machine is being taken apart.
    fn bus(&self, space: BarSpace) -> Option<Arc<Bus>> {
        match space {
            BarSpace::Io => self.ports.upgrade(),
            BarSpace::Memory => self.memory.upgrade(),
        }
    }

    /// The guest reads configuration space; `register` up to 4095 (PCI Express) and not across a
    /// dword. Where no function is, all ones (PCI Local Bus 3.0, 6.1).
    pub fn read_config(&self, address: Address, register: u16, data: &mut [u8]) {
        match self.slots.get(&address) {
            Some(slot) => lock(&slot.function).read_config(register, data),
            None => data.fill(0xFF),
        }
    }

    /// The guest writes configuration space; as [`PciBus::read_config`].
    pub fn write_config(&mut self, address: Address, register: u16, data: &[u8]) {
        let Some(slot) = self.slots.get(&address) else { return };
        lock(&slot.function).write_config(register, data);
        // Only the command register and the BARs move BARs.
        if (0x04..0x28).contains(&register) {
            self.map_bars();
        }
        self.settle_reads(address);
    }

    /// Brings the buses in line with what the guest programmed: first everything leaves its old
    /// place, then everything takes its new one, in order of device numbers.
    fn map_bars(&mut self) {
        let (Some(ports), Some(memory)) = (self.bus(BarSpace::Io), self.bus(BarSpace::Memory))
        else {
            return;
        };
        let bus = |space| match space {
            BarSpace::Io => &ports,
            BarSpace::Memory => &memory,
        };
        for slot in self.slots.values_mut() {
            let mut function = lock(&slot.function);
            for (index, bar) in slot.bars.iter_mut().enumerate() {
                let Some((_, mapped)) = bar else { continue };
                let wanted = function.config().bar_mapping(index);
                let Some(old) = mapped.take_if(|old| Some(*old) != wanted) else { continue };
                bus(old.space).remove(old.address);
                function.bar_unmapped(index);
            }
        }
        for slot in self.slots.values_mut() {
            let mut function = lock(&slot.function);
            for (index, bar) in slot.bars.iter_mut().enumerate() {
                let Some((device, mapped @ None)) = bar else { continue };
                let Some(wanted) = function.config().bar_mapping(index) else { continue };
                let device = Arc::clone(device);
                if bus(wanted.space).insert(slot.name, wanted.address, wanted.size, device).is_ok()
                {
                    *mapped = Some(wanted);
                    function.bar_mapped(index, wanted.address);
                }
            }
        }
    }
}

/// One BAR, as the machine's buses see it.
struct BarAccess {
    function: SharedFunction,
    index: usize,
}

impl BusDevice for BarAccess {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        lock(&self.function).read_bar(self.index, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        lock(&self.function).write_bar(self.index, offset, data);
    }
}

/// A panic elsewhere does not make the guest's devices unusable.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::config_page::ConfigPage;
    use crate::pci::{BarKind, ConfigSpace, Identity};

    /// Two BARs; remembers what happened to them.
    struct Probe {
        config: ConfigSpace,
        events: Vec<String>,
        has_effects: bool,
    }

    impl PciFunction for Probe {
        fn name(&self) -> &'static str {
            "probe"
        }
        fn config(&self) -> &ConfigSpace {
            &self.config
        }
        fn config_mut(&mut self) -> &mut ConfigSpace {
            &mut self.config
        }
        fn reads_as_stored(&self) -> bool {
            !self.has_effects
        }
        fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
            data.fill(bar as u8 * 16 + offset as u8);
        }
        fn bar_mapped(&mut self, bar: usize, address: u64) {
            self.events.push(format!("{bar} at {address:#x}"));
        }
        fn bar_unmapped(&mut self, bar: usize) {
            self.events.push(format!("{bar} gone"));
        }
    }

    fn probe() -> Arc<Mutex<Probe>> {
        let mut config = ConfigSpace::new(&Identity { vendor: 0x1234, ..Identity::default() });
        config.add_bar(0, BarKind::Memory32, 0x1000).unwrap();
        config.add_bar(1, BarKind::Io, 0x10).unwrap();
        Arc::new(Mutex::new(Probe { config, events: Vec::new(), has_effects: false }))
    }

    struct Machine {
        ports: Arc<Bus>,
        memory: Arc<Bus>,
        pci: PciBus,
    }

    fn machine() -> Machine {
        let (ports, memory) = (Arc::new(Bus::default()), Arc::new(Bus::default()));
        let pci = PciBus::new(&ports, &memory);
        Machine { ports, memory, pci }
    }

    const FIRST: Address = Address { device: 3, function: 0 };
    const SECOND: Address = Address { device: 4, function: 1 };

    fn read(bus: &Bus, address: u64) -> Option<u8> {
        let (device, _, offset) = bus.find(address)?;
        let mut byte = [0];
        device.lock().unwrap().read(offset, &mut byte);
        Some(byte[0])
    }

    #[test]
    fn functions_have_one_place_each() {
        let mut m = machine();
        m.pci.add(FIRST, probe()).unwrap();
        for address in
            [FIRST, Address { device: 32, function: 0 }, Address { device: 0, function: 8 }]
        {
            assert!(matches!(
                m.pci.add(address, probe()),
                Err(PciBusError::BadAddress { name: "probe", .. })
            ));
        }
        assert_eq!(m.pci.free_device(), Some(0));
        let mut id = [0; 2];
        m.pci.read_config(FIRST, 0, &mut id);
        assert_eq!(id, [0x34, 0x12]);
        m.pci.read_config(SECOND, 0, &mut id);
        assert_eq!(id, [0xFF, 0xFF]);
        m.pci.write_config(SECOND, 4, &[0xFF]);
    }

    #[test]
    fn assigned_bars_answer_and_do_not_overlap() {
        let mut m = machine();
        m.pci.add(FIRST, probe()).unwrap();
        m.pci.add(SECOND, probe()).unwrap();
        m.pci.assign_addresses().unwrap();
        assert_eq!(read(&m.memory, MEMORY_WINDOW.start + 5), Some(5));
        assert_eq!(read(&m.memory, MEMORY_WINDOW.start + 0x1006), Some(6));
        assert_eq!(read(&m.memory, MEMORY_WINDOW.start + 0x2000), None);
        assert_eq!(read(&m.ports, IO_WINDOW.start + 1), Some(0x11));
        assert_eq!(read(&m.ports, IO_WINDOW.start + 0x12), Some(0x12));
        m.pci.clear();
        assert_eq!(read(&m.memory, MEMORY_WINDOW.start + 5), None);
        assert_eq!(read(&m.ports, IO_WINDOW.start + 1), None);
        assert_eq!(m.pci.free_device(), Some(0));
    }

    #[test]
    fn bars_follow_the_guest() {
        let mut m = machine();
        let function = probe();
        m.pci.add(FIRST, Arc::clone(&function)).unwrap();
        m.pci.assign_addresses().unwrap();
        m.pci.write_config(FIRST, 4, &[0, 0]);
        assert_eq!(read(&m.memory, MEMORY_WINDOW.start), None);
        m.pci.write_config(FIRST, 0x10, &0xD000_0000u32.to_le_bytes());
        m.pci.write_config(FIRST, 4, &[2]);
        assert_eq!(read(&m.memory, 0xD000_0003), Some(3));
        assert_eq!(read(&m.ports, IO_WINDOW.start), None);
        // Moved byte by byte, with decoding on.
        m.pci.write_config(FIRST, 0x13, &[0xD1]);
        assert_eq!(read(&m.memory, 0xD000_0003), None);
        assert_eq!(read(&m.memory, 0xD100_0003), Some(3));
        assert_eq!(
            function.lock().unwrap().events,
            [
                "0 at 0xc0000000",
                "1 at 0xc000",
                "0 gone",
                "1 gone",
                "0 at 0xd0000000",
                "0 gone",
                "0 at 0xd1000000"
            ]
        );
    }

    #[test]
    fn a_bar_never_shadows_what_was_there_first() {
        let mut m = machine();
        m.memory.insert("chipset", 0xFED0_0000, 0x400, Arc::new(Mutex::new(Ones))).unwrap();
        m.pci.add(FIRST, probe()).unwrap();
        m.pci.add(SECOND, probe()).unwrap();
        m.pci.assign_addresses().unwrap();
        m.pci.write_config(FIRST, 0x10, &0xFED0_0000u32.to_le_bytes());
        assert_eq!(m.memory.find(0xFED0_0000).unwrap().1, "chipset");
        // On top of the other's BAR: it has to wait until that one moves away.
        let other = (MEMORY_WINDOW.start + 0x1000) as u32;
        m.pci.write_config(FIRST, 0x10, &other.to_le_bytes());
        m.pci.write_config(SECOND, 0x10, &0xD000_0000u32.to_le_bytes());
        assert!(m.memory.find(other.into()).is_some());
        assert!(m.memory.find(0xD000_0000).is_some());
        // Hostile: unassigned, and sizing with decoding on.
        for value in [0, u32::MAX] {
            m.pci.write_config(FIRST, 0x10, &value.to_le_bytes());
            assert!(m.memory.find(other.into()).is_none());
            assert!(m.memory.find(0xFFFF_F000).is_none());
        }
    }

    /// What was shown and hidden, by offset.
    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<(bool, u64)>>>);

    impl DirectReads for Shown {
        fn show(&mut self, offset: u64, page: &Arc<ConfigPage>) {
            assert_eq!([page.load(0), page.load(1)], [0x34, 0x12]);
            self.0.lock().unwrap().push((true, offset));
        }
        fn hide(&mut self, offset: u64) {
            self.0.lock().unwrap().push((false, offset));
        }
    }

    #[test]
    fn what_reads_as_stored_is_read_directly() {
        let mut m = machine();
        let (first, second) = (probe(), probe());
        m.pci.add(FIRST, Arc::clone(&first)).unwrap();
        m.pci.add(SECOND, Arc::clone(&second)).unwrap();
        second.lock().unwrap().has_effects = true;
        let shown = Shown::default();
        m.pci.read_directly(shown.clone());
        let (first_page, second_page) = (3 << 15, 4 << 15 | 1 << 12);
        let so_far = || std::mem::take(&mut *shown.0.lock().unwrap());
        assert_eq!(so_far(), [(true, first_page)]);
        m.pci.write_config(FIRST, 0x3C, &[9]);
        m.pci.write_config(SECOND, 0x3C, &[9]);
        assert_eq!(so_far(), []);
        // A write may change it either way.
        first.lock().unwrap().has_effects = true;
        second.lock().unwrap().has_effects = false;
        m.pci.write_config(FIRST, 0x3C, &[9]);
        m.pci.write_config(SECOND, 0x3C, &[9]);
        assert_eq!(so_far(), [(false, first_page), (true, second_page)]);
    }

    struct Ones;

    impl BusDevice for Ones {
        fn read(&mut self, _offset: u64, _data: &mut [u8]) {}
        fn write(&mut self, _offset: u64, _data: &[u8]) {}
    }

    #[test]
    fn a_full_window_is_an_error() {
        let mut m = machine();
        let mut config = ConfigSpace::new(&Identity::default());
        config.add_bar(0, BarKind::Memory64, 1 << 33).unwrap();
        let probe = Probe { config, events: Vec::new(), has_effects: false };
        m.pci.add(FIRST, Arc::new(Mutex::new(probe))).unwrap();
        assert!(matches!(m.pci.assign_addresses(), Err(PciBusError::NoRoom { bar: 0, .. })));
    }
}
