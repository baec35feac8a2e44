//! Message-signalled interrupts through KVM: an irqfd per vector, and the one routing table of
//! the machine (Documentation/virt/kvm/api.rst, KVM_SET_GSI_ROUTING and KVM_IRQFD).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::msi::{MsiMessage, MsiRouter, MsiVector};
use crate::poison::unpoisoned;

/// Inputs of KVM's IOAPIC; message vectors are numbered from here.
const IOAPIC_PINS: u32 = 24;
/// Inputs of each of the two PICs.
const PIC_PINS: u32 = 8;
/// KVM_MAX_IRQ_ROUTES on x86.
const MAX_GSI: u32 = 4096;

/// Holder of the machine's interrupt routing table. There must be one only, because
/// KVM_SET_GSI_ROUTING replaces the whole table.
pub struct KvmMsiRouter(Arc<Table>);

struct Table {
    vm: Arc<VmFd>,
    routes: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    allocated: u32,
    messages: BTreeMap<u32, MsiMessage>,
}

impl KvmMsiRouter {
    /// A table with the routes that KVM_CREATE_IRQCHIP made, which KVM keeps until the first
    /// message is routed.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self(Arc::new(Table { vm, routes: Mutex::default() }))
    }
}

impl MsiRouter for KvmMsiRouter {
    fn allocate(&self) -> io::Result<Arc<dyn MsiVector>> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let mut routes = self.0.lock();
        let gsi = IOAPIC_PINS + routes.allocated;
        if gsi >= MAX_GSI {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        routes.allocated += 1;
        let connected = Mutex::new(false);
        Ok(Arc::new(KvmVector { table: Arc::clone(&self.0), gsi, event, connected }))
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Routes> {
        unpoisoned(self.routes.lock())
    }

    /// Routes `gsi` to `message`. Routes stay when a vector is masked: most are unmasked with
    /// the same message, and replacing the table makes KVM wait for a grace period.
    fn route(&self, gsi: u32, message: MsiMessage) -> io::Result<()> {
        let mut routes = self.lock();
        let before = routes.messages.insert(gsi, message);
        if before == Some(message) {
            return Ok(());
        }
        let result = self.install(&routes.messages);
        if result.is_err() {
            // One refused route must not keep the others from being set later.
            match before {
                Some(before) => routes.messages.insert(gsi, before),
                None => routes.messages.remove(&gsi),
            };
        }
        result
    }

    fn install(&self, messages: &BTreeMap<u32, MsiMessage>) -> io::Result<()> {
        let mut entries = irqchip_routes();
        entries.extend(messages.iter().map(|(gsi, message)| msi_route(*gsi, *message)));
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))?;
        self.vm.set_gsi_routing(&table).map_err(Into::into)
    }
}

struct KvmVector {
    table: Arc<Table>,
    gsi: u32,
    event: EventFd,
    connected: Mutex<bool>,
}

impl MsiVector for KvmVector {
    fn connect(&self, message: Option<MsiMessage>) -> io::Result<()> {
        let mut connected = unpoisoned(self.connected.lock());
        // A new message for a connected vector: no interrupt may go to the old target once the
        // guest's write is over, and none may be lost, so it is disconnected in between.
        if *connected {
            // Kernels before 5.10 do not consume what they delivered; it is not pending.
            let _ = self.event.read();
            self.table.vm.unregister_irqfd(&self.event, self.gsi)?;
            *connected = false;
        }
        if let Some(message) = message {
            self.table.route(self.gsi, message)?;
            // KVM delivers what the eventfd holds already.
            self.table.vm.register_irqfd(&self.event, self.gsi)?;
            *connected = true;
        }
        Ok(())
    }

    fn event(&self) -> &EventFd {
        &self.event
    }
}

/// The routes KVM starts with (kvm_setup_default_irq_routing in arch/x86/kvm/irq_comm.c): 0 to
/// 15 go to both PIC and IOAPIC, the rest to the IOAPIC.
fn irqchip_routes() -> Vec<kvm_irq_routing_entry> {
    let route = |gsi, irqchip, pin| {
        let mut entry =
            kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
        entry
    };
    let master = (0..PIC_PINS).map(|pin| route(pin, KVM_IRQCHIP_PIC_MASTER, pin));
    let slave = (0..PIC_PINS).map(|pin| route(PIC_PINS + pin, KVM_IRQCHIP_PIC_SLAVE, pin));
    let ioapic = (0..IOAPIC_PINS).map(|pin| route(pin, KVM_IRQCHIP_IOAPIC, pin));
    master.chain(slave).chain(ioapic).collect()
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_irqchip_routes_are_those_of_the_kernel() {
        let routes = irqchip_routes();
        assert_eq!(routes.len(), 40);
        let of = |gsi| {
            // SAFETY: all routes of the list were made with the `irqchip` variant.
            let chips = routes.iter().filter(|r| r.gsi == gsi).map(|r| unsafe { r.u.irqchip });
            chips.map(|c| (c.irqchip, c.pin)).collect::<Vec<_>>()
        };
        assert_eq!(of(4), [(KVM_IRQCHIP_PIC_MASTER, 4), (KVM_IRQCHIP_IOAPIC, 4)]);
        assert_eq!(of(12), [(KVM_IRQCHIP_PIC_SLAVE, 4), (KVM_IRQCHIP_IOAPIC, 12)]);
        assert_eq!(of(20), [(KVM_IRQCHIP_IOAPIC, 20)]);
    }

    #[test]
    fn a_message_keeps_all_its_bits() {
        let route = msi_route(30, MsiMessage { address: 0x1_FEE0_2000, data: 0x8041 });
        // SAFETY: made with the `msi` variant.
        let msi = unsafe { route.u.msi };
        assert_eq!((route.gsi, msi.address_lo, msi.address_hi), (30, 0xFEE0_2000, 1));
        assert_eq!(msi.data, 0x8041);
    }
}
