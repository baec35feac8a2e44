//! A machine, from its configuration to its end:
//! memory → kernel → chipset → devices → vCPUs → run.

use std::mem;
use std::panic;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use tracing::info_span;
use vmm_sys_util::eventfd::EventFd;

use crate::backend::output::Output;
use crate::board::{self, Devices, Surroundings};
use crate::boot::load;
use crate::bus::Buses;
use crate::chipset::serial_io::SerialIo;
use crate::chipset::{self, ChipsetError};
use crate::config::{ConfigError, MachineConfig};
use crate::control::{Control, EndReason};
pub use crate::error::Error;
use crate::footprint;
pub use crate::handle::MachineHandle;
use crate::kvm::{self, KvmError};
use crate::memory::{self, GuestRam};
use crate::stats::{SharedCounters, Stats};
use crate::threads;
use crate::timeline::{Event, Recorder, Timeline};
use crate::vcpu::cpuid::HostCpuid;
use crate::vcpu::kick::Kicker;
use crate::vcpu::run::Vcpu;
use crate::vcpu::threads::Running;
use crate::vcpu::{self, VcpuError, setup};
use crate::vm;

/// Kernels and their device drivers have come up by then; later is no harm, and earlier would have
/// the same code paged in twice.
const START_UP: Duration = Duration::from_millis(500);

/// How long vCPUs and devices may take to stop after the machine's end: far more than they need. What
/// still runs then sits in a call to the host that does not return, a disk on a network that is gone
/// for one, and is left behind.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How a machine's run went.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Who or what ended it.
    pub reason: EndReason,
    /// Where the guest was, when it was a triple fault that reset it.
    pub triple_fault: Option<VcpuError>,
    /// How often the guest left for user space.
    pub stats: Stats,
    /// When the start's events happened.
    pub timeline: Timeline,
}

/// A machine that is ready to run, running, or has run.
///
/// Dropping it makes the kernel tear the VM down, which takes tens of milliseconds: tell of the
/// [`RunReport`] first, or leave by [`crate::teardown::exit_now`].
pub struct Machine {
    handle: MachineHandle,
    serial_io: Option<SerialIo>,
    /// Wakes the thread that serves the serial ports.
    serial_waker: EventFd,
    vcpus: Vec<Vcpu>,
    /// Kept so that their files close with the machine, not in [`Machine::run`].
    finished: Vec<VcpuFd>,
    devices: Devices,
    /// What the guest printed waits here for the host.
    outputs: Vec<Output>,
    /// Threads that did not stop, which may still use devices and RAM.
    left_behind: bool,
    ram: GuestRam,
    _vm: Arc<VmFd>,
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
        let ram = info_span!("memory").in_scope(|| memory::allocate(config.memory))?;
        Self::assemble(config, &kvm, &host_cpuid, recorder, ram.clone())
            .inspect_err(|_| memory::release(&ram))
    }

    fn assemble(
        config: MachineConfig,
        kvm: &Kvm,
        host_cpuid: &HostCpuid,
        recorder: Recorder,
        ram: GuestRam,
    ) -> Result<Self, Error> {
        let MachineConfig { kernel, memory, cpus, serial, board } = config;
        let ports = serial.each_ref().map(Option::is_some);
        let around = Surroundings { memory, cpus, serial: ports };
        let board = info_span!("back-ends").in_scope(|| board::open(board, around))?;
        let (device_set, shows_kvm) = (board.device_set(), board.shows_kvm());
        let hardware = board.hardware();
        // On another thread: made here, so that it has its place.
        let load_kernel = info_span!("kernel");
        let load = || {
            let _span = load_kernel.entered();
            let Some(hardware) = &hardware else { return Ok(None) };
            let loaded = load::load(&kernel, hardware, cpus, ports, &ram);
            loaded.inspect(|_| recorder.record(Event::KernelLoaded)).map(Some)
        };
        let own_memory = board.own_memory();
        let create = || {
            let _span = info_span!("create-vm").entered();
            let vm = vm::create(kvm, &ram, own_memory);
            vm.inspect(|_| recorder.record(Event::VmCreated))
        };
        let (kernel, vm) = beside("kernel", load, create)?;
        let (kernel, vm) = (kernel?, Arc::new(vm?));

        let (control, buses) = (Control::default(), Buses::default());
        let power = board.power_management();
        let chipset = info_span!("chipset")
            .in_scope(|| chipset::build(&buses.ports, &vm, power, serial, &control, &recorder))?;
        let devices = info_span!("devices").in_scope(|| board.plug_in(&vm, &ram, &buses))?;

        let make_vcpus = info_span!("vcpus").entered();
        let vcpus = (0..cpus).map(|id| {
            let fd = vm.create_vcpu(id.into()).map_err(KvmError::call("KVM_CREATE_VCPU"))?;
            let tsc_khz = fd.get_tsc_khz().ok();
            let cpuid = host_cpuid.for_vcpu(id, cpus, shows_kvm, tsc_khz)?;
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
        drop(make_vcpus);
        let mut outputs = chipset.serial_io.outputs();
        outputs.extend(devices.reach.output.clone());
        let handle = MachineHandle {
            control,
            recorder,
            power_button: chipset.power_button,
            end_asked: Arc::default(),
            vcpus: vcpus.iter().map(|v| (v.kicker.clone(), v.counters.clone())).collect(),
            device_counters: devices.reach.counters.clone(),
            disks: devices.reach.disks.clone().into(),
            balloon: devices.reach.balloon.clone(),
            console: devices.reach.console.clone(),
            memory,
            devices: device_set,
        };

        Ok(Self {
            handle,
            serial_waker: chipset.serial_io.waker().map_err(ChipsetError::from)?,
            serial_io: Some(chipset.serial_io),
            vcpus,
            finished: Vec::new(),
            devices,
            outputs,
            left_behind: false,
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
        &self.devices.reach.notes
    }

    /// Runs the guest to its end. A second call returns at once.
    ///
    /// # Errors
    /// A vCPU that cannot go on, with its registers; or the host refused a thread.
    pub fn run(&mut self) -> Result<RunReport, Error> {
        let report = self.run_guest();
        if report.is_err() {
            // Where a thread was refused, nothing else has.
            self.handle.control.stop();
        }
        self.handle.control.gone();
        report
    }

    fn run_guest(&mut self) -> Result<RunReport, Error> {
        if let Some(serial_io) = self.serial_io.take() {
            let control = self.handle.control.clone();
            let serve = move || serial_io.serve(&control);
            let name = "serial";
            let started = threads::builder(name).spawn(serve);
            started.map_err(|source| Error::Thread { name: name.into(), source })?;
        }
        self.handle.recorder.record(Event::FirstRun);
        let running = vcpu::threads::start(mem::take(&mut self.vcpus), &self.handle.control)?;
        let control = &self.handle.control;
        let end = control.wait_for(START_UP).unwrap_or_else(|| {
            footprint::release_startup_memory();
            control.wait()
        });
        self.handle.recorder.record(Event::End);
        self.wind_up(running);
        let (reason, triple_fault) = match end {
            Ok(reason) => (reason, None),
            Err(fault) => (EndReason::Reset, Some(Error::unless_reset(fault)?)),
        };
        let (stats, timeline) = (self.handle.stats(), self.handle.timeline());
        Ok(RunReport { reason, triple_fault, stats, timeline })
    }

    /// Stops what runs, whatever it is doing, and waits for the host to take the last output.
    fn wind_up(&mut self, running: Vec<Running>) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        for vcpu in running {
            match vcpu.stop(deadline) {
                Some(thread) => self.finished.extend(thread),
                None => self.left_behind = true,
            }
        }
        if let Some(devices) = self.devices.plugged.clone() {
            // The process may leave without dropping anything. On a thread of its own: a device may
            // have to wait for the host, or for a vCPU that does.
            let (done, stopped) = mpsc::channel();
            let shut_down = move || {
                devices.shut_down();
                drop(devices);
                let _ = done.send(());
            };
            let started = threads::builder("shut-down").spawn(shut_down);
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
        // Fails only when the counter is full, and then it is awake.
        let _ = self.serial_waker.write(1);
        if self.left_behind {
            // What still runs may use them: better leaked than reused.
            let devices = self.devices.plugged.clone();
            mem::forget((devices, self.ram.clone(), Arc::clone(&self._vm)));
        } else {
            memory::release(&self.ram);
        }
        self.handle.control.gone();
    }
}

/// Calls `first` on a thread called `name`, and `second` on this one meanwhile: KVM_CREATE_VM mostly waits for a kernel
/// thread. It is the second, which begins at once: where there is one CPU, a new thread does not get it before the one
/// that made it waits.
fn beside<A: Send, B>(
    name: &str,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> Result<(A, B), Error> {
    thread::scope(|scope| {
        let first = threads::builder(name).spawn_scoped(scope, first);
        let first = first.map_err(|source| Error::Thread { name: name.into(), source })?;
        let second = second();
        let first = first.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        Ok((first, second))
    })
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
