//! The exit loop.

use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::kick::{GuestExit, Kicker};
use super::{Fault, Registers, VcpuError};
use crate::bus::Buses;
use crate::control::run_state::Entry;
use crate::control::{Control, EndReason};
use crate::poison::unpoisoned;
use crate::stats::{Access, NO_DEVICE, SharedCounters};

/// A vCPU ready to run, to be moved to its thread.
pub struct Vcpu {
    /// Its number, which is its APIC id.
    pub id: u32,
    /// KVM's handle of the vCPU, with its run page.
    pub fd: VcpuFd,
    /// See [`Buses`].
    pub buses: Buses,
    /// Says whether the guest is to run, and is told when it has ended.
    pub control: Control,
    /// Gets it out of the guest.
    pub kicker: Kicker,
    /// Counts the vCPU's exits.
    pub counters: SharedCounters,
}

impl Vcpu {
    /// Runs the guest until the machine ends, by this vCPU's doing or otherwise. Dropping the
    /// handle that is left makes the kernel tear the vCPU down.
    pub fn run(mut self) -> VcpuFd {
        let mut handler = ExitHandler {
            buses: self.buses,
            control: self.control.clone(),
            counters: self.counters,
        };
        self.kicker.kickable(&mut self.fd, |vcpu| {
            loop {
                // What a kick is for is set before the kick itself, and looked at here after it is
                // cleared: so none is missed.
                vcpu.clear_exit_request();
                match self.control.before_entry() {
                    Entry::Run => {}
                    // Keeps the guest's watchdogs quiet. Refused where it has no kvmclock.
                    Entry::RunAfterPause => drop(vcpu.fd().kvmclock_ctrl()),
                    Entry::End => break,
                }
                let result = match vcpu.run() {
                    Ok(exit) => handler.handle(exit),
                    Err(error) => handler.handle_error(error),
                };
                if let Err(fault) = result {
                    let registers = Registers::of(vcpu.fd()).map(Box::new);
                    self.control.end(Err(VcpuError { cpu: self.id, fault, registers }));
                }
            }
        });
        self.fd
    }
}

struct ExitHandler {
    buses: Buses,
    control: Control,
    counters: SharedCounters,
}

impl ExitHandler {
    fn handle(&mut self, exit: GuestExit<'_>) -> Result<(), Fault> {
        let GuestExit { reason, io_width, suberror } = exit;
        match reason {
            VcpuExit::IoIn(port, data) => self.port_read(port.into(), io_width, data),
            VcpuExit::IoOut(port, data) => self.port_write(port.into(), io_width, data),
            VcpuExit::MmioRead(address, data) => self.mmio_read(address, data),
            VcpuExit::MmioWrite(address, data) => self.mmio_write(address, data),
            VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => {
                self.control.end(Ok(EndReason::PowerOff));
            }
            VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => {
                self.control.end(Ok(EndReason::Reset));
            }
            VcpuExit::SystemEvent(event, _) => return Err(Fault::SystemEvent(event)),
            VcpuExit::Intr => self.counters.other("interrupted"),
            VcpuExit::Shutdown => return Err(Fault::TripleFault),
            VcpuExit::FailEntry(reason, cpu) => return Err(Fault::FailEntry { reason, cpu }),
            VcpuExit::InternalError => return Err(Fault::Internal { suberror }),
            VcpuExit::MemoryFault { gpa, .. } => return Err(Fault::Memory { address: gpa }),
            VcpuExit::Hlt => return Err(Fault::Unexpected("HLT, despite the in-kernel APIC")),
            VcpuExit::Unknown => return Err(Fault::Unexpected("KVM_EXIT_UNKNOWN")),
            VcpuExit::Exception => return Err(Fault::Unexpected("KVM_EXIT_EXCEPTION")),
            VcpuExit::Hypercall(_) => return Err(Fault::Unexpected("KVM_EXIT_HYPERCALL")),
            VcpuExit::Debug(_) => return Err(Fault::Unexpected("KVM_EXIT_DEBUG")),
            _ => return Err(Fault::Unexpected("a reason that is not for x86 or is new")),
        }
        Ok(())
    }

    fn handle_error(&mut self, error: kvm_ioctls::Error) -> Result<(), Fault> {
        match error.errno() {
            libc::EINTR => self.counters.other("interrupted"),
            // An application processor has been woken by INIT or SIPI.
            libc::EAGAIN => self.counters.other("woken"),
            _ => return Err(Fault::Run(error)),
        }
        Ok(())
    }

    fn port_read(&mut self, port: u64, width: usize, data: &mut [u8]) {
        data.fill(0xff);
        let Some((device, name, offset)) = self.buses.ports.find(port) else {
            return self.counters.access(NO_DEVICE, Access::PortRead, port);
        };
        self.counters.access(name, Access::PortRead, port);
        let mut device = unpoisoned(device.lock());
        if data.len() > width {
            device.read_repeated(offset, width, data);
        } else {
            device.read(offset, data);
        }
    }

    fn port_write(&mut self, port: u64, width: usize, data: &[u8]) {
        let Some((device, name, offset)) = self.buses.ports.find(port) else {
            return self.counters.access(NO_DEVICE, Access::PortWrite, port);
        };
        self.counters.access(name, Access::PortWrite, port);
        let mut device = unpoisoned(device.lock());
        if data.len() > width {
            device.write_repeated(offset, width, data);
        } else {
            device.write(offset, data);
        }
    }

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((device, name, offset)) = self.buses.mmio.find(address) else {
            return self.counters.access(NO_DEVICE, Access::MmioRead, address & !0xfff);
        };
        self.counters.access(name, Access::MmioRead, address);
        unpoisoned(device.lock()).read(offset, data);
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        let Some((device, name, offset)) = self.buses.mmio.find(address) else {
            // By page, as a mapping is what a driver got wrong.
            return self.counters.access(NO_DEVICE, Access::MmioWrite, address & !0xfff);
        };
        self.counters.access(name, Access::MmioWrite, address);
        unpoisoned(device.lock()).write(offset, data);
    }
}

#[cfg(test)]
mod tests;
