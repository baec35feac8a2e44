//! The levels `paravirt` and `fullvirt`: a virtual machine with our init as PID 1.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use isolab_guest::control::{self, Credit, End};
use isolab_guest::kernels::{self, GuestKernel};
use isolab_guest::{Marker, RootDisks, User, Workload};
use isolab_guest::{initramfs, modules};
use isolab_images::Image;
use isolab_vmm::backend::disk::DiskOptions;
use isolab_vmm::backend::net::NetOptions;
use isolab_vmm::backend::serial_port::SerialPort;
use isolab_vmm::board::{BoardConfig, paravirtual, pc};
use isolab_vmm::boot::initrd::InitrdPart;
use isolab_vmm::boot::load::KernelConfig;
use isolab_vmm::config::MachineConfig;
use isolab_vmm::machine::{Machine, MachineHandle, RunReport};
use isolab_vmm::teardown;
use isolab_vmm::timeline::Event;
use oci_spec::runtime::{LinuxResources, Spec};
use tracing::debug_span;

use crate::ending::Signals;
use crate::error::IsolationError;
use crate::instance::{Ended, Instance, InstanceSpec, Isolation, Signaller};
use crate::instances::InstanceFolder;
use crate::level::Level;
use crate::name_files::Names;
use crate::scratch_disk;
use crate::timeline::{Milestone, Timeline, now};

/// Guest RAM where no memory limit is asked for, in bytes.
const DEFAULT_MEMORY: u64 = 512 << 20;
/// How much of the guest's console is kept for the case that something goes wrong, in bytes.
const CONSOLE_TAIL: usize = 4096;

/// How long a guest may take to end after SIGTERM, as with `podman stop`.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long this process may take to end once the machine is to be gone.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);

/// What a level's guest finds, and needs to find it.
struct Hardware {
    /// Puts disks and networks on the board.
    board: fn(Vec<DiskOptions>, Vec<NetOptions>) -> BoardConfig,
    /// What the two disks may be called.
    disks: [&'static str; 2],
    /// Drivers and file systems, for kernels that have them as modules. The file systems look for
    /// crc32c by its name, which is no dependency that depmod could see.
    modules: &'static [&'static str],
    /// The network controller's driver, likewise.
    network_driver: &'static str,
}

const VIRTIO: Hardware = Hardware {
    board: |disks, nets| {
        BoardConfig::Paravirtual(paravirtual::Options { disks, nets, ..Default::default() })
    },
    disks: ["/dev/vda", "/dev/vdb"],
    modules: &["virtio_pci", "virtio_blk", "crc32c_generic", "erofs", "ext4", "overlay"],
    network_driver: "virtio_net",
};
const EMULATED: Hardware = Hardware {
    board: |disks, nets| BoardConfig::Pc(pc::Options { disks, nets, ..Default::default() }),
    disks: ["/dev/sda", "/dev/sdb"],
    modules: &["ata_piix", "sd_mod", "crc32c_generic", "erofs", "ext4", "overlay"],
    network_driver: "e1000",
};

/// One of the two VM levels.
pub struct MachineLevel {
    level: Level,
}

impl MachineLevel {
    /// `Paravirt` or `Fullvirt`.
    pub fn new(level: Level) -> Self {
        Self { level }
    }

    fn hardware(&self) -> &'static Hardware {
        match self.level {
            Level::Fullvirt => &EMULATED,
            _ => &VIRTIO,
        }
    }
}

/// The kernel that a VM level runs: the one chosen, else for `paravirt` the quickest there is, and
/// for `fullvirt`, which stands for an unmodified OS, a stock one.
///
/// # Errors
/// There is none.
pub fn guest_kernel(level: Level, choice: Option<&str>) -> Result<GuestKernel, IsolationError> {
    let preferred = match level {
        Level::Fullvirt => ["stock", "cloud", "slim"],
        _ => ["slim", "stock", "cloud"],
    };
    Ok(kernels::find(choice, &preferred)?)
}

impl Isolation for MachineLevel {
    fn create(&self, spec: InstanceSpec) -> Result<Box<dyn Instance>, IsolationError> {
        let kernel = guest_kernel(self.level, spec.kernel.as_deref())?;
        let hardware = self.hardware();
        let workload = workload(&spec, hardware)?;
        let mut drivers = hardware.modules.to_vec();
        drivers.extend(spec.network.as_ref().map(|_| hardware.network_driver));
        let initramfs = debug_span!("initramfs", kernel = %kernel).in_scope(|| {
            let modules = modules::with_dependencies(&kernel, &drivers)?;
            initramfs::pack(&workload, &modules).map_err(IsolationError::host("pack the initramfs"))
        })?;
        let image = DiskOptions { read_only: true, ..DiskOptions::new(spec.image.root_disk()?) };
        let scratch_file = scratch_disk::new(spec.folder.shared())?;
        let scratch_path = format!("/proc/self/fd/{}", scratch_file.as_raw_fd());
        let scratch =
            DiskOptions { id: Some("scratch".to_owned()), ..DiskOptions::new(scratch_path) };
        let (reader, writer) = io::pipe().map_err(IsolationError::host("make a pipe"))?;
        let credit = Arc::new(Credit::default());
        let (events, received) = mpsc::channel();
        let on_end = {
            let events = events.clone();
            // A failed send means that nobody waits any more.
            move |end| drop(events.send(Ending::Workload(end)))
        };
        let line: OwnedFd = writer.into();
        let sender = control::Sender::new(File::from(line), Arc::clone(&credit))
            .map_err(IsolationError::host("prepare the control channel"))?;
        let receiver = control::Receiver::new(io::stdout(), io::stderr(), sender.clone(), on_end);
        let console = ConsoleTail::default();
        let nets = spec.network.iter().map(|network| network.tap.clone()).collect();
        let config = MachineConfig {
            kernel: KernelConfig {
                initrd: vec![InitrdPart::Bytes(initramfs)],
                cmdline: format!(
                    "console=ttyS0 quiet reboot=k panic=-1 rdinit={}",
                    initramfs::INIT_PATH
                ),
                ..KernelConfig::new(&kernel.image)
            },
            memory: memory(&spec.spec)?,
            cpus: cpus(&spec.spec),
            board: (hardware.board)(vec![image, scratch], nets),
            serial: [
                Some(SerialPort::output_only(console.clone())),
                Some(SerialPort {
                    output: Box::new(receiver),
                    gather: false,
                    input: Some(reader.into()),
                }),
                None,
                None,
            ],
        };
        let machine = debug_span!("machine")
            .in_scope(|| Machine::new(config))
            .map_err(|error| machine_error(error, &console))?;
        Ok(Box::new(MachineInstance {
            handle: machine.handle(),
            machine: Some(machine),
            sender,
            stdin: spec.stdin,
            events,
            received,
            console,
            created: now(),
            _image: spec.image,
            folder: Some(spec.folder),
        }))
    }
}

/// What [`MachineInstance::wait`] waits for: whichever comes first.
enum Ending {
    Workload(End),
    /// The operator wants it gone; by this signal, if it had been a process.
    Forced(u8),
    Machine(Result<RunReport, Box<isolab_vmm::machine::Error>>),
}

struct MachineInstance {
    machine: Option<Machine>,
    handle: MachineHandle,
    sender: control::Sender,
    stdin: bool,
    events: Sender<Ending>,
    received: Receiver<Ending>,
    console: ConsoleTail,
    created: u64,
    // Holds the image's lease: the collector leaves the disk alone.
    _image: Image,
    /// Until it is removed.
    folder: Option<InstanceFolder>,
}

impl Instance for MachineInstance {
    fn start(&mut self) -> Result<(), IsolationError> {
        let Some(mut machine) = self.machine.take() else { return Ok(()) };
        let events = self.events.clone();
        let run = move || {
            let end = machine.run().map_err(Box::new);
            let _ = events.send(Ending::Machine(end));
            // The kernel takes tens of milliseconds to tear a VM down. It does so when the
            // process ends, which reports the workload's end first.
            std::mem::forget(machine);
        };
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let builder = thread::Builder::new().name(name.to_owned());
            builder.spawn(body).map(drop).map_err(IsolationError::host("start a thread"))
        };
        spawn("machine", Box::new(run))?;
        if self.stdin {
            let sender = self.sender.clone();
            // Ends with the process: a read of standard input cannot be called off.
            spawn("stdin", Box::new(move || feed_stdin(&sender)))?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<Ended, IsolationError> {
        // The channel cannot close: we hold a sender.
        let ending = self.received.recv();
        let ending =
            ending.map_err(|e| IsolationError::host("wait for the guest")(io::Error::other(e)))?;
        self.handle.stop();
        match ending {
            Ending::Workload(End::Exited(code)) => Ok(Ended::Exited(code)),
            Ending::Workload(End::Killed(signal)) => Ok(Ended::Killed(signal)),
            Ending::Forced(signal) => Ok(Ended::Killed(signal)),
            Ending::Workload(End::NotStarted(code, why)) => {
                Err(IsolationError::NotStarted { code, why })
            }
            Ending::Workload(End::Failed(why)) => {
                Err(IsolationError::Init { why, console: self.console.text() })
            }
            Ending::Machine(Ok(exit)) => Err(IsolationError::GuestEnded {
                reason: match exit.triple_fault {
                    Some(fault) => fault.to_string(),
                    None => format!("{:?}", exit.reason),
                },
                console: self.console.text(),
            }),
            Ending::Machine(Err(error)) => Err(machine_error(*error, &self.console)),
        }
    }

    fn signaller(&self) -> Result<Signaller, IsolationError> {
        let (sender, events) = (self.sender.clone(), self.events.clone());
        let end = move |signal| {
            // A failed send means that the machine has ended already.
            let _ = events.send(Ending::Forced(signal));
            // Other threads of ours may sit in a write to a host that reads nothing, with a lock that
            // is needed for the way out.
            teardown::exit_within(EXIT_PATIENCE, 128 + i32::from(signal));
        };
        let forward = move |signal| sender.signal(signal);
        let signals = Signals::new(forward, end, STOP_PATIENCE);
        Ok(Box::new(move |signal| signals.arrived(signal)))
    }

    fn timeline(&self) -> Timeline {
        let machine = self.handle.timeline();
        let mut timeline = Timeline::default();
        timeline.reach(Milestone::Created, self.created);
        for (milestone, event) in [
            (Milestone::GuestEntered, Event::FirstRun),
            (Milestone::GuestInit, Event::Marker(Marker::Init as u8)),
            (Milestone::WorkloadStarted, Event::Marker(Marker::Workload as u8)),
            (Milestone::WorkloadEnded, Event::Marker(Marker::Ended as u8)),
        ] {
            if let Some(time) = machine.at(event) {
                timeline.reach(milestone, time);
            }
        }
        timeline
    }

    fn remove(mut self: Box<Self>) -> Result<(), IsolationError> {
        self.handle.stop();
        self.folder.take().map_or(Ok(()), InstanceFolder::remove)
    }
}

impl Drop for MachineInstance {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn feed_stdin(sender: &control::Sender) {
    let mut buffer = [0; 4096];
    let mut stdin = io::stdin();
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if sender.stdin(&buffer[..count]).is_err() {
                    return; // the workload has ended
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = sender.end_stdin();
}

fn machine_error(source: isolab_vmm::machine::Error, console: &ConsoleTail) -> IsolationError {
    IsolationError::Machine { source: Box::new(source), console: console.text() }
}

/// The OCI process as init takes it.
fn workload(spec: &InstanceSpec, hardware: &Hardware) -> Result<Workload, IsolationError> {
    let process = spec.spec.process().as_ref().ok_or_else(|| IsolationError::Setting {
        field: "process",
        why: "the specification has none".to_owned(),
    })?;
    let user = process.user();
    let hostname = spec.spec.hostname().clone().unwrap_or_default();
    let interface = spec.network.as_ref().map(|network| &network.interface);
    let names = Names::Own { hostname: &hostname, interface };
    Ok(Workload {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().display().to_string(),
        user: User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        },
        name_files: names.files(),
        hostname,
        modules: Vec::new(),
        root: RootDisks {
            devices: hardware.disks.map(str::to_owned).into(),
            image: "erofs".to_owned(),
            scratch: "ext4".to_owned(),
        },
        network: spec.network.as_ref().map(|network| network.interface),
        stdin: spec.stdin,
    })
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref()?.resources().as_ref()
}

/// Guest RAM: the memory limit, rounded up to whole pages.
fn memory(spec: &Spec) -> Result<u64, IsolationError> {
    let limit = resources(spec).and_then(|r| r.memory().as_ref()).and_then(|m| m.limit());
    let limit = limit.unwrap_or(DEFAULT_MEMORY as i64);
    let limit = u64::try_from(limit).ok().and_then(|limit| limit.checked_next_multiple_of(4096));
    limit.ok_or_else(|| IsolationError::Setting {
        field: "memory",
        why: "a guest cannot have unlimited memory; give a size".to_owned(),
    })
}

/// vCPUs: the CPU limit, rounded up to whole processors.
fn cpus(spec: &Spec) -> u32 {
    let cpu = resources(spec).and_then(|resources| resources.cpu().as_ref());
    let limit = cpu.and_then(|cpu| Some((cpu.quota()?, cpu.period().filter(|p| *p > 0)?)));
    match limit {
        Some((quota, period)) if quota > 0 => {
            u32::try_from((quota as u64).div_ceil(period)).unwrap_or(u32::MAX)
        }
        _ => 1,
    }
}

/// The last lines of the guest's console, for an error message.
#[derive(Clone, Default)]
struct ConsoleTail(Arc<Mutex<Vec<u8>>>);

impl ConsoleTail {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A guest's bytes go to a terminal: no escape sequences.
        let printable = |c: &char| !c.is_control() || *c == '\n';
        String::from_utf8_lossy(&bytes).chars().filter(printable).collect()
    }
}

impl Write for ConsoleTail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(bytes);
        let excess = tail.len().saturating_sub(CONSOLE_TAIL);
        tail.drain(..excess);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_container::{Limits, default_spec};

    fn spec(limits: Limits) -> Spec {
        default_spec("host", vec!["true".to_owned()], vec![], limits).unwrap()
    }

    #[test]
    fn limits_become_ram_and_processors() {
        let limited =
            Limits { memory_bytes: Some((64 << 20) + 1), cpus: Some(1.5), ..Limits::default() };
        assert_eq!(memory(&spec(limited)).unwrap(), (64 << 20) + 4096);
        assert_eq!(cpus(&spec(limited)), 2);
        assert_eq!(memory(&spec(Limits::default())).unwrap(), DEFAULT_MEMORY);
        assert_eq!(cpus(&spec(Limits::default())), 1);
    }

    #[test]
    fn the_console_keeps_its_end_and_no_escape_sequences() {
        let mut console = ConsoleTail::default();
        console.write_all(&vec![b'x'; 2 * CONSOLE_TAIL]).unwrap();
        console.write_all(b"\x1b[31mthe end\r\n").unwrap();
        let text = console.text();
        assert!(text.ends_with("[31mthe end\n") && !text.contains('\x1b'));
        assert!(text.len() <= CONSOLE_TAIL);
    }
}
