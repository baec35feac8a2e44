//! `isolab vm run`

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use error_reporter::Report;
use isolab_command::format::{EXIT_OWN_FAILURE, Format, parse_size};
use isolab_command::terminal::{self, RawTerminal};
use isolab_command::{failure, signals};
use isolab_vmm::backend::disk::DiskOptions;
use isolab_vmm::backend::net::NetOptions;
use isolab_vmm::backend::serial_port::SerialPort;
use isolab_vmm::backend::share::ShareOptions;
use isolab_vmm::board::{BoardConfig, paravirtual, pc};
use isolab_vmm::boot::initrd::InitrdPart;
use isolab_vmm::boot::load::{FirmwareTables, KernelConfig};
use isolab_vmm::config::MachineConfig;
use isolab_vmm::control::EndReason;
use isolab_vmm::control::protocol::DEFAULT_GRACE;
use isolab_vmm::control::server::Server;
use isolab_vmm::machine::{Machine, MachineHandle, RunReport};
use isolab_vmm::virtio::balloon::BalloonOptions;
use isolab_vmm::virtio::vsock::VsockOptions;
use isolab_vmm::{teardown, threads};

use super::serial::{self, SerialOption};
use super::verdict::{self, LastWords};
use super::{control, keys};

/// Boot a Linux kernel, with its console on this terminal.
///
/// Ctrl-a x ends the machine, Ctrl-a h tells more. SIGTERM and SIGHUP press the power button and
/// end the machine after the grace period; a second one, or SIGINT, ends it at once.
///
/// The exit status is 0 when the guest powers off, or reboots (unless --on-reboot says otherwise),
/// also by a triple fault; 134 when its last words on this console were a kernel panic's; 137 when
/// it was ended by force; 127 when firmware found nothing to start; 125 when isolab failed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    isolab vm run --kernel /boot/vmlinuz --initrd initramfs.cpio.gz --memory 512M --cpus 2")]
#[allow(rustdoc::broken_intra_doc_links, reason = "[,id=NAME] is the help's option, not a link")]
pub struct Run {
    /// ELF vmlinux, or bzImage of any usual compression.
    #[arg(long, value_name = "FILE", required_unless_present = "firmware")]
    kernel: Option<PathBuf>,
    /// PC firmware (SeaBIOS) that starts the system on the first disk; needs --devices emulated.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd"])]
    firmware: Option<PathBuf>,
    /// A raw disk: PATH[,readonly][,cache=writeback|writethrough|none][,engine=io_uring|sync]
    /// [,id=NAME][,poll=MICROSECONDS][,bps=BYTES][,iops=N][,format=raw]. An image that is plainly qcow2, VMDK or the like
    /// is refused without format=raw.
    #[arg(long, value_name = "DISK")]
    disk: Vec<DiskOptions>,
    /// An ISO image in a CD-ROM drive; needs --devices emulated.
    #[arg(long, value_name = "FILE")]
    cdrom: Vec<PathBuf>,
    /// A network: tap[=NAME][,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,vhost=on|off][,poll=MICROSECONDS]
    /// [,bps=][,pps=]; without a name a new tap is made. By default the host's kernel moves the frames (vhost) where it can.
    #[arg(long, value_name = "NET")]
    net: Vec<NetOptions>,
    /// A folder of this host, which the guest mounts by its tag (mount -t virtiofs TAG /mnt):
    /// PATH,tag=TAG[,readonly][,cache=none|auto|always].
    #[arg(long, value_name = "SHARE")]
    share: Vec<ShareOptions>,
    /// Streams between programs of host and guest: cid=NUMBER,path=SOCKET.
    #[arg(long, value_name = "VSOCK", value_parser = parse_vsock)]
    vsock: Option<VsockOptions>,
    /// The host side of COM2, COM3 or COM4: com2=PATH. A terminal works both ways, a pipe or file
    /// takes what the guest sends. COM1 is this terminal.
    #[arg(long, value_name = "PORT")]
    serial: Vec<SerialOption>,
    /// Give the guest the host's random numbers (virtio-rng).
    #[arg(long)]
    rng: bool,
    /// A balloon that takes this much of the guest's RAM from the start; 0 for none yet.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    balloon: Option<u64>,
    /// Initial RAM file system; several are concatenated.
    #[arg(long, value_name = "FILE")]
    initrd: Vec<PathBuf>,
    /// Kernel command line; by default `reboot=k panic=-1` and the console of --console.
    #[arg(long, value_name = "STRING", conflicts_with = "firmware")]
    cmdline: Option<String>,
    /// What this terminal is to the guest.
    #[arg(long, value_enum, default_value_t = ConsoleDevice::Serial)]
    console: ConsoleDevice,
    /// Guest RAM, in bytes or with K, M, G or T.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    memory: u64,
    /// Virtual CPUs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Which machine the guest sees.
    #[arg(long, value_enum, default_value_t = Devices::Virtio)]
    devices: Devices,
    /// How virtio devices are found.
    #[arg(long, value_enum, default_value_t = Transport::Pci)]
    virtio_transport: Transport,
    /// What a reboot of the guest does.
    #[arg(long, value_enum, default_value_t = OnReboot::Exit)]
    on_reboot: OnReboot,
    /// Describe the machine by MP tables instead of ACPI, for kernels without ACPI.
    #[arg(long, conflicts_with = "firmware")]
    mp_tables: bool,
    /// Where decompressed kernels are kept.
    #[arg(long, value_name = "DIR", conflicts_with = "firmware")]
    kernel_cache: Option<PathBuf>,
    /// Let other processes control the machine through a Unix socket made here: see `isolab vm
    /// info`, pause, resume, stop, kill, stats and balloon.
    #[arg(long, value_name = "SOCKET")]
    api_socket: Option<PathBuf>,
    /// How long the guest may take to shut down after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_GRACE.as_secs(),
          value_parser = control::grace_range())]
    grace: u64,
    /// At the end, print how often and why the guest left for user space (to standard error).
    #[arg(long)]
    stats: bool,
    /// Format of the statistics.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the times of events, in nanoseconds of CLOCK_MONOTONIC, to this file as JSON.
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Devices {
    /// Paravirtual: KVM's own features.
    Virtio,
    /// A physical PC: no hint of a hypervisor.
    Emulated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConsoleDevice {
    /// COM1, a 16550A: ttyS0.
    Serial,
    /// A virtio console: hvc0.
    Virtio,
}

impl ConsoleDevice {
    fn default_cmdline(self) -> &'static str {
        match self {
            ConsoleDevice::Serial => "console=ttyS0 reboot=k panic=-1",
            ConsoleDevice::Virtio => "console=hvc0 reboot=k panic=-1",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// On a PCI bus, with an interrupt for each queue.
    Pci,
    /// At addresses told by ACPI: a quicker start, a shared interrupt.
    Mmio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnReboot {
    /// End, with exit status 0.
    Exit,
    /// Start the machine again.
    Reset,
}

/// How long this process may take to end once somebody asked for it and the machine is gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `isolab vm run`.
///
/// # Errors
/// What the operator should read.
pub fn run(options: Run) -> Result<ExitCode> {
    // A pipe waits here for its reader, and signals still end the wait.
    let timings = options.timings.as_ref().map(|path| {
        File::create(path).with_context(|| format!("cannot create {}", path.display()))
    });
    let timings = timings.transpose()?;
    // Before any thread exists, so that all of them inherit the mask.
    let signals = signals::block(&[libc::SIGWINCH]).context("cannot block signals")?;

    let raw = RawTerminal::open().context("cannot set up the terminal")?;
    let (input, keys) = keys::input(&raw).context("cannot read standard input")?;
    let last_words = LastWords::default();
    let mut machine = Machine::new(configure(&options, input, &last_words)?)?;
    for note in machine.notes() {
        eprintln!("isolab: {note}\r");
    }
    let handle = machine.handle();
    if let Some(keys) = keys {
        let handle = handle.clone();
        keys.watch(move || handle.stop()).context("cannot watch the keyboard")?;
    }
    let server = options.api_socket.as_deref().map(|path| {
        let handle = handle.clone();
        Server::start(path, move |request| {
            handle.execute(request).map_err(|e| Report::new(e).to_string())
        })
    });
    let server = server.transpose()?;
    let grace = Duration::from_secs(options.grace);
    let mut asked = false;
    let on_signal = {
        let handle = handle.clone();
        move |signal| {
            if signal == libc::SIGWINCH {
                return resize(&handle);
            }
            let patient = matches!(signal, libc::SIGTERM | libc::SIGHUP);
            end(&handle, (patient && !asked).then_some(grace));
            asked = true;
        }
    };
    signals.on_arrival(on_signal).context("cannot wait for signals")?;
    resize(&handle);

    let report = machine.run();
    let verdict = verdict::judge(report.as_ref().ok(), &last_words, options.firmware.is_some());
    if handle.end_was_asked() {
        // What is left to say may find nobody who reads it.
        teardown::exit_within(EXIT_TIMEOUT, verdict.status);
    }
    // Whoever asked for the end gets the answer.
    drop(server);
    drop(raw);
    let told = report.map_err(Into::into).and_then(|report| {
        if let Some(message) = &verdict.message {
            eprintln!("isolab: {message}");
        }
        write_figures(&options, &report, timings)?;
        let rebooted = report.reason == EndReason::Reset && !handle.end_was_asked();
        if rebooted && options.on_reboot == OnReboot::Reset {
            return Err(start_again()).context("cannot start the machine again");
        }
        Ok(verdict.status)
    });
    // Never by dropping the machine, which would wait for its devices.
    teardown::exit_now(told.unwrap_or_else(|error| {
        failure::tell(error.as_ref());
        EXIT_OWN_FAILURE.into()
    }))
}

/// What the options ask for, with a terminal whose keys are `input`.
fn configure(options: &Run, input: OwnedFd, last_words: &LastWords) -> Result<MachineConfig> {
    let output = Box::new(last_words.of(terminal::Output));
    let terminal = SerialPort { output, gather: true, input: Some(input) };
    let (com1, hvc0) = match options.console {
        ConsoleDevice::Serial => (Some(terminal), None),
        ConsoleDevice::Virtio => (None, Some(terminal)),
    };
    let mut serial = [com1, None, None, None];
    serial::connect(&mut serial, &options.serial)?;
    let cmdline = options.cmdline.as_deref().unwrap_or(options.console.default_cmdline());
    Ok(MachineConfig {
        kernel: KernelConfig {
            image: options.kernel.clone().unwrap_or_default(),
            initrd: options.initrd.iter().cloned().map(InitrdPart::File).collect(),
            cmdline: cmdline.to_owned(),
            tables: if options.mp_tables { FirmwareTables::Mp } else { FirmwareTables::Acpi },
            cache: options.kernel_cache.clone(),
        },
        memory: options.memory,
        cpus: options.cpus,
        serial,
        board: board(options, hvc0)?,
    })
}

/// The board that --devices names, with what the options put on it.
fn board(options: &Run, hvc0: Option<SerialPort>) -> Result<BoardConfig> {
    let (disks, nets) = (options.disk.clone(), options.net.clone());
    match options.devices {
        Devices::Virtio => {
            refuse(
                &[("firmware", options.firmware.is_some()), ("cdrom", !options.cdrom.is_empty())],
                "emulated",
            )?;
            let transport = match options.virtio_transport {
                Transport::Pci => paravirtual::Transport::Pci,
                Transport::Mmio => paravirtual::Transport::Mmio,
            };
            if options.mp_tables && transport == paravirtual::Transport::Mmio {
                bail!("--virtio-transport mmio needs ACPI tables; leave out --mp-tables");
            }
            Ok(BoardConfig::Paravirtual(paravirtual::Options {
                transport,
                disks,
                nets,
                shares: options.share.clone(),
                vsock: options.vsock.clone(),
                vsock_peer: None,
                rng: options.rng,
                console: hvc0,
                balloon: options.balloon.map(|target| BalloonOptions {
                    target,
                    deflate_on_oom: true,
                    free_page_reporting: true,
                }),
            }))
        }
        Devices::Emulated => {
            refuse(
                &[
                    ("share", !options.share.is_empty()),
                    ("vsock", options.vsock.is_some()),
                    ("console virtio", hvc0.is_some()),
                    ("balloon", options.balloon.is_some()),
                    ("rng", options.rng),
                    ("virtio-transport mmio", options.virtio_transport == Transport::Mmio),
                ],
                "virtio",
            )?;
            let cdroms = options.cdrom.iter().map(DiskOptions::new).collect();
            let firmware = options.firmware.clone();
            Ok(BoardConfig::Pc(pc::Options { firmware, disks, cdroms, mailbox: None, nets }))
        }
    }
}

/// Refuses the first option that was given though only machines with other devices have its like.
fn refuse(given: &[(&str, bool)], devices: &str) -> Result<()> {
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => bail!("--{option} needs --devices {devices}"),
        None => Ok(()),
    }
}

/// Becomes a new process with the same arguments, id and open terminal: every device and page
/// starts afresh, and what the old machine held has gone with its descriptors.
fn start_again() -> io::Error {
    process::Command::new("/proc/self/exe").args(env::args_os().skip(1)).exec()
}

/// Tells the guest the terminal's size, where there is one.
fn resize(machine: &MachineHandle) {
    if let Some((columns, rows)) = terminal::size() {
        machine.resize_console(columns, rows);
    }
}

/// Ends the machine: in its own time where there is a grace period, else at once.
fn end(machine: &MachineHandle, grace: Option<Duration>) {
    let Some(grace) = grace else { return machine.stop() };
    let waiting = machine.clone();
    // On a thread of its own, for the next signal is to be heard.
    let shut_down = move || drop(waiting.shut_down(grace));
    if threads::builder("shut-down").spawn(shut_down).is_err() {
        machine.stop();
    }
}

/// The statistics and times that were asked for.
fn write_figures(options: &Run, report: &RunReport, timings: Option<File>) -> Result<()> {
    if options.stats {
        let mut out = io::stderr().lock();
        match options.format {
            Format::Table => write!(out, "{}", report.stats)?,
            Format::Json => writeln!(out, "{}", serde_json::to_string(&report.stats)?)?,
        }
    }
    if let Some(mut file) = timings {
        writeln!(file, "{}", serde_json::to_string(&report.timeline)?)
            .context("cannot write the timings")?;
    }
    Ok(())
}

/// The number that `option` was given.
fn number<T: FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{option}={text}: not a number, or out of range"))
}

/// Parses what `--vsock` is given, for example `cid=3,path=/run/vm0.vsock`.
fn parse_vsock(text: &str) -> Result<VsockOptions, String> {
    let (mut cid, mut path) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("cid", value)) => cid = Some(number("cid", value)?),
            Some(("path", value)) => path = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option `{part}`; there are cid= and path=")),
        }
    }
    match (cid, path) {
        (Some(cid), Some(path)) => Ok(VsockOptions { cid, path }),
        _ => Err("both are needed: cid=NUMBER,path=SOCKET".into()),
    }
}
