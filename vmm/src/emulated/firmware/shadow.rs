//! ROM and shadow RAM below 1 MiB, as KVM memory slots: each area that the host bridge's PAM
//! registers name is a slot of its own, over the RAM or over the ROM behind it.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, MmapRegion};

use crate::bus::BusDevice;
use crate::emulated::piix::host_bridge::{PamMapper, ShadowArea};
use crate::kvm::KvmError;
use crate::memory::GuestRam;
use crate::poison::unpoisoned;

/// Guest-physical addresses of the areas; the machine leaves them out of its own slots.
pub const RANGE: Range<u64> = 0xc_0000..0x10_0000;
const RANGE_LENGTH: usize = (RANGE.end - RANGE.start) as usize;
/// The part of it that shows the end of the firmware's image (PIIX3, XBCS: lower BIOS enabled).
const LEGACY_ROM_LENGTH: usize = 0x2_0000;
/// One area; the topmost is four of them long.
const AREA: u64 = 0x4000;
const AREAS: usize = RANGE_LENGTH / AREA as usize;
/// Slot numbers for areas and ROM, beyond those for RAM.
const FIRST_SLOT: u32 = 32;
const ROM_SLOT: u32 = FIRST_SLOT + AREAS as u32;

/// Firmware that cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// The host has no memory for the ROM.
    #[error("cannot allocate memory for the firmware's ROM")]
    Allocate(#[source] MmapRegionError),
    /// KVM refused a slot.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// The firmware's ROM at the top of 4 GiB, and the areas below 1 MiB.
pub struct Shadow {
    vm: Arc<VmFd>,
    ram: GuestRam,
    /// What reads reach where they do not reach RAM: all ones, and the end of the image.
    legacy: MmapRegion,
    _rom: MmapRegion,
    writable: Arc<Mutex<[bool; AREAS]>>,
    mapped: [bool; AREAS],
}

impl Shadow {
    /// Maps `image` (a multiple of 4 KiB) so that it ends at 4 GiB, and its last 128 KiB below
    /// 1 MiB; nothing of that is RAM yet.
    ///
    /// # Errors
    /// [`ShadowError`].
    pub fn new(vm: Arc<VmFd>, ram: GuestRam, image: &[u8]) -> Result<Self, ShadowError> {
        let legacy = region(RANGE_LENGTH, 0xff)?;
        let end = &image[image.len().saturating_sub(LEGACY_ROM_LENGTH)..];
        fill(&legacy, RANGE_LENGTH - end.len(), end);
        let rom = region(image.len(), 0)?;
        fill(&rom, 0, image);
        let writable = Arc::default();
        let mut shadow = Self { vm, ram, legacy, _rom: rom, writable, mapped: [false; AREAS] };
        let start = (1 << 32) - image.len() as u64;
        let host = shadow._rom.as_ptr() as u64;
        shadow.set_slot(ROM_SLOT, start, image.len() as u64, host, true)?;
        for index in 0..AREAS as u64 {
            let start = RANGE.start + index * AREA;
            shadow.map_area(start, AREA, false, false)?;
        }
        Ok(shadow)
    }

    /// What serves writes to areas that read from ROM and write to RAM.
    pub fn writes(&self) -> ShadowWrites {
        ShadowWrites { ram: self.ram.clone(), writable: Arc::clone(&self.writable) }
    }

    fn map_area(
        &mut self,
        start: u64,
        length: u64,
        read_ram: bool,
        write_ram: bool,
    ) -> Result<(), KvmError> {
        let writable = Arc::clone(&self.writable);
        let mut writable = unpoisoned(writable.lock());
        for at in (start..start + length).step_by(AREA as usize) {
            let index = ((at - RANGE.start) / AREA) as usize;
            writable[index] = write_ram;
            let host = if read_ram {
                self.ram.get_host_address(GuestAddress(at)).map_err(|_| KvmError::Call {
                    call: "KVM_SET_USER_MEMORY_REGION (shadow RAM)",
                    source: std::io::Error::from_raw_os_error(libc::EFAULT),
                })? as u64
            } else {
                self.legacy.as_ptr() as u64 + (at - RANGE.start)
            };
            let slot = FIRST_SLOT + index as u32;
            // A slot's memory can only be changed by making it anew.
            if std::mem::take(&mut self.mapped[index]) {
                self.set_slot(slot, at, 0, 0, false)?;
            }
            self.set_slot(slot, at, AREA, host, !(read_ram && write_ram))?;
            self.mapped[index] = true;
        }
        Ok(())
    }

    fn set_slot(
        &self,
        slot: u32,
        start: u64,
        length: u64,
        host: u64,
        read_only: bool,
    ) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: if read_only { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: start,
            memory_size: length,
            userspace_addr: host,
        };
        // SAFETY: the memory is guest RAM, which stays mapped, or one of our two regions, which
        // live as long as the host bridge and with it the machine's buses; vCPUs have stopped by
        // then. All of it is accessed by us as volatile memory only.
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))
    }
}

impl PamMapper for Shadow {
    fn map(&mut self, area: ShadowArea) {
        // Everything was mapped once already, so a refusal now could only mean that the host is
        // out of memory; the area then stays unmapped, and the guest reads all ones there.
        let _ = self.map_area(area.start, area.length, area.read_ram, area.write_ram);
    }
}

fn region(length: usize, fill_with: u8) -> Result<MmapRegion, ShadowError> {
    let region = MmapRegion::new(length).map_err(ShadowError::Allocate)?;
    if fill_with != 0 {
        fill(&region, 0, &vec![fill_with; length]);
    }
    Ok(region)
}

fn fill(region: &MmapRegion, at: usize, data: &[u8]) {
    use vm_memory::VolatileMemory;
    if let Ok(place) = region.get_slice(at, data.len()) {
        place.copy_from(data);
    }
}

/// Writes that arrive here because their area is read-only: to RAM if the area says so, else
/// nowhere.
pub struct ShadowWrites {
    ram: GuestRam,
    writable: Arc<Mutex<[bool; AREAS]>>,
}

impl BusDevice for ShadowWrites {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, offset: u64, data: &[u8]) {
        let writable = unpoisoned(self.writable.lock());
        if writable.get((offset / AREA) as usize) == Some(&true) {
            // The range is RAM in every valid configuration.
            let _ = self.ram.write_slice(data, GuestAddress(RANGE.start + offset));
        }
    }
}
