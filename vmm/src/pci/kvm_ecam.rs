//! Configuration space in ECAM as KVM memory slots: a read costs no exit. Writes do, because the
//! slots are read-only (Documentation/virt/kvm/api.rst, KVM_MEM_READONLY).

use std::collections::BTreeMap;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;

use super::ECAM_BASE;
use super::config_page::{ConfigPage, DirectReads, PAGE};

/// Slot numbers of the functions, beyond those for RAM.
const FIRST_SLOT: u32 = 64;

/// The slots of a machine's ECAM.
///
/// Each is one page: a slot for the whole would need memory for the functions that are not there.
pub struct KvmEcam {
    vm: Arc<VmFd>,
    /// By offset into ECAM.
    shown: BTreeMap<u64, Arc<ConfigPage>>,
}

impl KvmEcam {
    /// No slots yet.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, shown: BTreeMap::new() }
    }

    fn set_slot(&self, offset: u64, length: usize, host: u64) -> bool {
        let region = kvm_userspace_memory_region {
            slot: FIRST_SLOT + (offset / PAGE as u64) as u32,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: ECAM_BASE + offset,
            memory_size: length as u64,
            userspace_addr: host,
        };
        // SAFETY: `host` is a page that `shown` keeps from before this call until its slot is gone,
        // or as long as the PCI bus and with it the machine's buses; vCPUs have stopped by then. The
        // guest cannot write to it, and we change it by atomic stores only.
        unsafe { self.vm.set_user_memory_region(region) }.is_ok()
    }
}

impl DirectReads for KvmEcam {
    fn show(&mut self, offset: u64, page: &Arc<ConfigPage>) {
        let host = page.host_address();
        self.shown.insert(offset, Arc::clone(page));
        if !self.set_slot(offset, PAGE, host) {
            self.shown.remove(&offset);
        }
    }

    fn hide(&mut self, offset: u64) {
        // To take away a slot that is there needs no memory, so it does not fail.
        if self.shown.contains_key(&offset) && self.set_slot(offset, 0, 0) {
            self.shown.remove(&offset);
        }
    }
}
