//! A machine, from its configuration to its end:
//! memory → kernel → chipset → devices → vCPUs → run.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::backend::output::Output;
use crate::boot::acpi::{self, AcpiError};
use crate::boot::kernel::{Kernel, KernelError, Protocol};
use crate::boot::kernel_cache::KernelCache;
use crate::boot::prepare::{BootError, Information, prepare};
use crate::boot::{layout, mptable, reset_vector};
use crate::bus::Bus;
use crate::chipset::serial_io::SerialIo;
use crate::chipset::{self, ChipsetError};
use crate::config::{ConfigError, DeviceSet, FirmwareTables, MachineConfig, VirtioTransport};
use crate::control::{Control, EndReason};
use crate::emulated;
use crate::emulated::assemble::EmulatedDevices;
use crate::emulated::attach as emulated_attach;
use crate::emulated::firmware::shadow;
use crate::footprint;
pub use crate::handle::MachineHandle;
use crate::kvm::{self, KvmError};
use crate::memory::{self, GuestRam, MemoryError};
use crate::pci;
use crate::probe;
use crate::stats::{SharedCounters, Stats};
use crate::threads;
use crate::timeline::{Event, Recorder, Timeline};
use crate::vcpu::cpuid::HostCpuid;
use crate::vcpu::kick::Kicker;
use crate::vcpu::run::{Buses, Vcpu};
use crate::vcpu::{Fault, VcpuError, setup};
use crate::virtio::attach::{self as virtio_attach, VirtioDevices};
use crate::virtio::stats::DeviceCounters;
use crate::virtio::transport::acpi as transport_acpi;

/// Kernels and their device drivers have come up by then; later is no harm, and earlier would have
/// the same code paged in twice.
const START_UP: Duration = Duration::from_millis(500);

/// How long vCPUs and devices may take to stop after the machine's end: far more than they need. What
/// still runs then sits in a call to the host that does not return, a disk on a network that is gone
/// for one, and is left behind.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Between two kicks of a vCPU that is to leave its loop.
const KICK_INTERVAL: Duration = Duration::from_micros(200);

/// Why a machine could not be made or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// KVM is missing or refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No RAM to be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel image cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Command line or initrd cannot be used.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The ACPI tables do not fit.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The chipset cannot be put together.
    #[error(transparent)]
    Chipset(#[from] ChipsetError),
    /// The host refused a thread.
    #[error("cannot start the thread `{name}`")]
    Thread {
        /// Its name.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// An emulated device cannot be attached.
    #[error(transparent)]
    Emulated(#[from] emulated_attach::AttachError),
    /// A virtio device cannot be attached.
    #[error(transparent)]
    Virtio(#[from] virtio_attach::AttachError),
    /// The guest cannot go on.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The guest cannot go on, and the host's KVM could not have run it.
    #[error("{source}; no wonder: /dev/kvm cannot run a guest kernel: {fault}; {}", probe::MEND)]
    UnfaithfulKvm {
        /// How it ended.
        source: VcpuError,
        /// What the probe guest found.
        fault: String,
    },
}

impl Error {
    /// A triple fault resets a PC, and some kernels reboot by one on purpose; any other fault is an
    /// error. A guest that dies on a KVM that cannot run any should not be searched for the fault.
    fn unless_reset(source: VcpuError) -> Result<VcpuError, Self> {
        let report = probe::open_kvm().and_then(|kvm| probe::probe(&kvm));
        match report.ok().and_then(|report| report.fault()) {
            Some(fault) => Err(Error::UnfaithfulKvm { source, fault }),
            None if source.is_reset() => Ok(source),
            None => Err(Error::Vcpu(source)),
        }
    }
}

/// How a machine ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Why.
    pub reason: EndReason,
    /// Where the guest was, when it was a triple fault that reset it.
    pub triple_fault: Option<VcpuError>,
    /// How often the guest left for user space.
    pub stats: Stats,
    /// When things happened.
    pub timeline: Timeline,
}

/// A machine that is ready to run, running, or has run.
///
/// Dropping it makes the kernel tear the VM down, which takes tens of milliseconds: report the
/// [`Exit`] first, or leave by [`crate::teardown::exit_now`].
pub struct Machine {
    handle: MachineHandle,
    serial_io: Option<SerialIo>,
    vcpus: Vec<Vcpu>,
    /// Kept so that their files close with the machine, not in [`Machine::run`].
    finished: Vec<VcpuFd>,
    devices: Arc<Devices>,
    /// What the guest printed waits here for the host.
    outputs: Vec<Output>,
    /// Threads that did not stop, which may still use devices and RAM.
    left_behind: bool,
    notes: Vec<String>,
    ram: GuestRam,
    _vm: Arc<VmFd>,
}

/// What is on the buses besides the chipset.
enum Devices {
    None,
    Virtio(VirtioDevices),
    /// Held for their threads.
    Emulated {
        _devices: EmulatedDevices,
    },
}

impl Devices {
    /// Stops what holds anything of the host's.
    fn shut_down(&self) {
        if let Devices::Virtio(devices) = self {
            devices.shut_down();
        }
    }
}

impl Machine {
    /// Makes the machine that `config` describes. Nothing runs yet.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn new(config: MachineConfig) -> Result<Self, Error> {
        let recorder = Recorder::default();
        recorder.record(Event::Start);
        config.validate()?;
        let kvm = kvm::open()?;
        let host_cpuid = HostCpuid::read(&kvm)?;
        check_host_limits(&config, &kvm, &host_cpuid)?;
        let ram = memory::allocate(config.memory)?;
        Self::assemble(config, &kvm, &host_cpuid, recorder, ram.clone())
            .inspect_err(|_| memory::release(&ram))
    }

    fn assemble(
        mut config: MachineConfig,
        kvm: &Kvm,
        host_cpuid: &HostCpuid,
        recorder: Recorder,
        ram: GuestRam,
    ) -> Result<Self, Error> {
        // KVM_CREATE_VM mostly waits for a kernel thread, so the kernel is loaded meanwhile.
        let (vm, kernel) = thread::scope(|scope| {
            let create = || {
                create_vm(kvm, &ram, config.firmware.is_some())
                    .inspect(|_| recorder.record(Event::VmCreated))
            };
            let name = "create-vm";
            let creator = threads::builder(name).spawn_scoped(scope, create);
            let creator = creator.map_err(|source| Error::Thread { name: name.into(), source })?;
            let kernel = match config.firmware {
                Some(_) => Ok(None),
                None => load(&config, &ram, &recorder).map(Some),
            };
            Ok::<_, Error>((creator.join(), kernel))
        })?;
        let kernel = kernel?;
        let vm = Arc::new(vm.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);

        let control = Control::default();
        let buses = Buses { ports: Arc::new(Bus::default()), mmio: Arc::new(Bus::default()) };
        let serial_ports = config.serial.each_ref().map(Option::is_some);
        let serial = std::mem::take(&mut config.serial);
        let chipset =
            chipset::build(&buses.ports, &vm, config.devices, serial, &control, &recorder)?;
        let (devices, notes) = match config.devices {
            DeviceSet::Virtio if virtio_attach::count(&config) > 0 => {
                let mut devices = virtio_attach::attach(&mut config, &vm, &ram, &buses)?;
                let notes = std::mem::take(&mut devices.notes);
                (Devices::Virtio(devices), notes)
            }
            DeviceSet::Virtio => (Devices::None, Vec::new()),
            DeviceSet::Emulated => {
                let (devices, notes) =
                    emulated_attach::attach(&config, serial_ports[0], &vm, &ram, &buses)?;
                (Devices::Emulated { _devices: devices }, notes)
            }
        };

        let vcpus = (0..config.cpus).map(|id| {
            let fd = vm.create_vcpu(id.into()).map_err(KvmError::call("KVM_CREATE_VCPU"))?;
            let tsc_khz = fd.get_tsc_khz().ok();
            let cpuid = host_cpuid.for_vcpu(id, config.cpus, config.devices, tsc_khz)?;
            fd.set_cpuid2(&cpuid).map_err(KvmError::call("KVM_SET_CPUID2"))?;
            setup::after_reset(&fd)?;
            // Firmware starts at the reset vector, where KVM has put the processor.
            if let Some(kernel) = kernel.as_ref().filter(|_| id == 0) {
                setup::kernel_entry(&fd, kernel)?;
            }
            let (buses, control) = (buses.clone(), control.clone());
            let (kicker, counters) = (Kicker::default(), SharedCounters::default());
            Ok(Vcpu { id, fd, buses, control, kicker, counters })
        });
        let vcpus = vcpus.collect::<Result<Vec<_>, KvmError>>()?;
        let mut outputs = chipset.serial_io.outputs();
        let (device_counters, balloon, console) = match &devices {
            Devices::Virtio(devices) => {
                outputs.extend(devices.output.clone());
                (devices.counters.clone(), devices.balloon.clone(), devices.console.clone())
            }
            _ => (DeviceCounters::default(), None, None),
        };
        let handle = MachineHandle {
            control,
            recorder,
            power_button: chipset.power_button,
            end_asked: Arc::default(),
            vcpus: vcpus.iter().map(|v| (v.kicker.clone(), v.counters.clone())).collect(),
            device_counters,
            balloon,
            console,
            memory: config.memory,
            devices: config.devices,
        };

        Ok(Self {
            handle,
            serial_io: Some(chipset.serial_io),
            vcpus,
            finished: Vec::new(),
            devices: Arc::new(devices),
            outputs,
            left_behind: false,
            notes,
            ram,
            _vm: vm,
        })
    }

    /// A handle for other threads.
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// What the operator should know before it runs: fallbacks, and what is lost.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Runs the guest to its end. A second call returns at once.
    ///
    /// # Errors
    /// A vCPU that cannot go on, with its registers; or the host refused a thread.
    pub fn run(&mut self) -> Result<Exit, Error> {
        let exit = self.run_guest();
        if exit.is_err() {
            // Where a thread was refused, nothing else has.
            self.handle.control.stop();
        }
        self.handle.control.gone();
        exit
    }

    fn run_guest(&mut self) -> Result<Exit, Error> {
        if let Some(serial_io) = self.serial_io.take() {
            let control = self.handle.control.clone();
            spawn("serial".into(), move || serial_io.serve(&control))?;
        }
        self.handle.recorder.record(Event::FirstRun);
        let running = start_vcpus(std::mem::take(&mut self.vcpus), &self.handle.control)?;
        let control = &self.handle.control;
        let outcome = control.wait_for(START_UP).unwrap_or_else(|| {
            footprint::release_startup_memory();
            control.wait()
        });
        self.handle.recorder.record(Event::End);
        self.wind_up(running);
        let (reason, triple_fault) = match outcome {
            Ok(reason) => (reason, None),
            Err(fault) => (EndReason::Reset, Some(Error::unless_reset(fault)?)),
        };
        let (stats, timeline) = (self.handle.stats(), self.handle.timeline());
        Ok(Exit { reason, triple_fault, stats, timeline })
    }

    /// Stops what runs, whatever it is doing, and waits for the host to take the last output.
    fn wind_up(&mut self, running: Vec<Running>) {
        let deadline = Instant::now() + STOP_PATIENCE;
        for vcpu in running {
            match vcpu.stop(deadline) {
                Some(thread) => self.finished.extend(thread),
                None => self.left_behind = true,
            }
        }
        if let Devices::Virtio(_) = &*self.devices {
            // The process may leave without dropping anything. On a thread of its own: a device may
            // have to wait for the host, or for a vCPU that does.
            let devices = Arc::clone(&self.devices);
            let (done, stopped) = mpsc::channel();
            let shut_down = move || {
                devices.shut_down();
                drop(devices);
                let _ = done.send(());
            };
            let started = spawn("shut-down".into(), shut_down);
            let left = deadline.saturating_duration_since(Instant::now());
            self.left_behind |= started.is_err() || stopped.recv_timeout(left).is_err();
        }
        let control = &self.handle.control;
        for output in &self.outputs {
            output.drain(|| control.output_is_given_up());
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.handle.stop();
        if self.left_behind {
            // What still runs may use them: better leaked than reused.
            std::mem::forget((Arc::clone(&self.devices), self.ram.clone(), Arc::clone(&self._vm)));
        } else {
            memory::release(&self.ram);
        }
        self.handle.control.gone();
    }
}

/// A vCPU on its thread.
struct Running {
    kicker: Kicker,
    thread: JoinHandle<VcpuFd>,
}

impl Running {
    /// Waits for the thread, which leaves its loop because the machine has ended, until `deadline`;
    /// `None` if it has not left by then. The kick is repeated because a signal may also arrive
    /// just before a blocking call of a device. What is inside is the vCPU, unless it panicked.
    fn stop(self, deadline: Instant) -> Option<Option<VcpuFd>> {
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                return None;
            }
            self.kicker.kick();
            if !self.thread.is_finished() {
                thread::sleep(KICK_INTERVAL);
            }
        }
        Some(self.thread.join().ok())
    }
}

/// Starts all vCPUs, or none.
fn start_vcpus(vcpus: Vec<Vcpu>, control: &Control) -> Result<Vec<Running>, Error> {
    let mut running: Vec<Running> = Vec::new();
    // The boot processor last, so that the others already wait for their INIT.
    for vcpu in vcpus.into_iter().rev() {
        let kicker = vcpu.kicker.clone();
        let (id, on_panic) = (vcpu.id, EndOnPanic { cpu: vcpu.id, control: control.clone() });
        let started = spawn(format!("vcpu{id}"), move || {
            let _on_panic = on_panic;
            vcpu.run()
        });
        match started {
            Ok(thread) => running.push(Running { kicker, thread }),
            Err(error) => {
                control.end(Ok(EndReason::Stopped));
                let deadline = Instant::now() + STOP_PATIENCE;
                running.into_iter().for_each(|vcpu| drop(vcpu.stop(deadline)));
                return Err(error);
            }
        }
    }
    Ok(running)
}

/// A bug in a device must end the machine, not leave it without a CPU.
struct EndOnPanic {
    cpu: u32,
    control: Control,
}

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = VcpuError { cpu: self.cpu, fault: Fault::Panicked, registers: None };
            self.control.end(Err(error));
        }
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    let builder = threads::builder(&name);
    builder.spawn(body).map_err(|source| Error::Thread { name, source })
}

fn check_host_limits(
    config: &MachineConfig,
    kvm: &Kvm,
    cpuid: &HostCpuid,
) -> Result<(), ConfigError> {
    let max = kvm.get_max_vcpus();
    if config.cpus as usize > max {
        return Err(ConfigError::CpusBeyondKvm { cpus: config.cpus, max });
    }
    let bits = cpuid.physical_address_bits();
    let last = memory::ranges(config.memory).last().map_or(0, |(start, length)| start + length - 1);
    if last.checked_shr(bits).unwrap_or(0) != 0 {
        return Err(ConfigError::MemoryBeyondAddresses { memory: config.memory, bits });
    }
    Ok(())
}

/// Makes the VM with its RAM, interrupt controllers and timer.
///
/// With firmware, RAM is left out where the host bridge's shadow RAM will be.
fn create_vm(kvm: &Kvm, ram: &GuestRam, firmware: bool) -> Result<VmFd, KvmError> {
    let vm = kvm.create_vm().map_err(KvmError::call("KVM_CREATE_VM"))?;
    let pieces = ram.iter().flat_map(|region| {
        let (start, end) = (region.start_addr().0, region.start_addr().0 + region.len());
        let split = firmware && start < shadow::RANGE.start;
        let hole = if split { shadow::RANGE } else { end..end };
        [start..hole.start, hole.end..end].into_iter().filter(|piece| !piece.is_empty())
    });
    for (slot, piece) in pieces.enumerate() {
        let host = ram.get_host_address(GuestAddress(piece.start));
        let userspace_addr = host.map_err(|_| KvmError::Call {
            call: "KVM_SET_USER_MEMORY_REGION",
            source: io::Error::from_raw_os_error(libc::EFAULT),
        })? as u64;
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            guest_phys_addr: piece.start,
            memory_size: piece.end - piece.start,
            userspace_addr,
            flags: 0,
        };
        // SAFETY: the range is guest RAM, mapped until the process ends and accessed by us as
        // volatile memory only.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))?;
    }
    vm.set_identity_map_address(layout::IDENTITY_MAP)
        .map_err(KvmError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.set_tss_address(layout::TSS as usize).map_err(KvmError::call("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip().map_err(KvmError::call("KVM_CREATE_IRQCHIP"))?;
    // The dummy speaker makes KVM answer port 0x61, which Linux calibrates the TSC with.
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(KvmError::call("KVM_CREATE_PIT2"))?;
    Ok(vm)
}

/// Fills guest RAM: kernel, firmware tables, initrd, command line.
fn load(config: &MachineConfig, ram: &GuestRam, recorder: &Recorder) -> Result<Kernel, Error> {
    let cache = KernelCache::new(config.kernel_cache.clone());
    let kernel = Kernel::open(&config.kernel, cache.as_ref())?;
    kernel.load(ram)?;
    let virtio_devices = match config.devices {
        DeviceSet::Virtio => virtio_attach::count(config),
        DeviceSet::Emulated => 0,
    };
    let has_pci = virtio_devices > 0 && config.transport == VirtioTransport::Pci;
    // Linux trusts the MCFG table only where the memory map says the same.
    let ecam = [(pci::ECAM_BASE, pci::ECAM_LENGTH)];
    let reserved = if has_pci { &ecam[..] } else { &[] };
    let mut tables = Vec::new();
    let rsdp = match config.tables {
        FirmwareTables::Acpi => {
            let serial = [0, 1, 2, 3].map(|port: usize| config.serial[port].is_some());
            let (level_interrupts, definitions) = match config.devices {
                DeviceSet::Virtio if has_pci => {
                    tables.push(pci::acpi::mcfg());
                    (&[][..], pci::acpi::host_bridge(pci::intx::gsi, None))
                }
                DeviceSet::Virtio if virtio_devices > 0 => {
                    (&[][..], transport_acpi::mmio_devices(virtio_devices))
                }
                DeviceSet::Virtio => (&[][..], Vec::new()),
                DeviceSet::Emulated => {
                    (&emulated::acpi::LEVEL_INTERRUPTS[..], emulated::acpi::pci_host_bridge())
                }
            };
            let description = acpi::Description {
                cpus: config.cpus,
                devices: config.devices,
                serial,
                level_interrupts,
                definitions: &definitions,
                tables: &tables,
            };
            Some(acpi::write(ram, &description)?)
        }
        FirmwareTables::Mp => None,
    };
    // Beside ACPI tables, too: a kernel that prefers those still looks for this one first, and
    // spends 7 ms on the emulated KVM host to find that it is missing.
    mptable::write(ram, config.cpus).map_err(BootError::from)?;
    reset_vector::write(ram).map_err(BootError::from)?;
    let is_linux = matches!(kernel.protocol, Protocol::Linux64 | Protocol::Linux32);
    let cmdline = match config.devices {
        // Spares the kernel some 200 exits in search of a PCI bus. In front, so that the
        // operator's own words win.
        DeviceSet::Virtio if !has_pci && is_linux => {
            Cow::Owned(format!("pci=off {}", config.cmdline))
        }
        _ => Cow::Borrowed(&*config.cmdline),
    };
    let initrd = &config.initrd;
    let information = Information { cmdline: &cmdline, initrd, acpi: rsdp, reserved };
    prepare(ram, &kernel, &information)?;
    recorder.record(Event::KernelLoaded);
    Ok(kernel)
}
