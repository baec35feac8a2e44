//! `isolab bench`

mod devices;
mod image;
mod peers;

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use isolab_bench::machines;
use isolab_bench::runtimes::{self, RuntimesPlan};
use isolab_bench::service;
use isolab_bench::startup::{self, StartupPlan, Subject};
use isolab_bench::{Findings, Host, Measurement, Report};
use isolab_command::Executable;
use isolab_command::format::{Format, parse_size};
use isolab_command::logging::Logging;
use isolab_guest::package;
use isolab_images::Store;
use isolab_isolation::{GuestKernel, Level, guest_kernel};

use self::peers::Peer;

/// Measure the levels of isolation side by side.
#[derive(Debug, Parser)]
#[command(name = "isolab-bench", bin_name = "isolab bench", version)]
pub struct Bench {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Startup(Startup),
    Image(image::Images),
    Disk(devices::DiskBench),
    Net(devices::NetBench),
}

/// From spawning `isolab run` to the workload's first output line and to its end, and to a port that answers.
///
/// One round warms up, then the levels are measured in turn, A B C D A B C D. Both VM levels run
/// one and the same kernel; where that is not the stock one, fullvirt-stock is one more subject:
/// an unmodified OS on emulated hardware.
///
/// The part about ports needs root and an image with httpd: a network is made for the time of the measurement, with
/// somebody on it. `run -d -p` is timed to its own end and to the first connection from the host, and
/// what a network costs is the difference of two starts in the foreground.
///
/// With --peers, bare `isolab vm run` is measured beside other VMMs instead (and beside levels
/// that are named): one kernel, an initramfs of one tiny program, the same RAM, one vCPU. Time
/// runs from the spawn of the VMM to its guest's line on the console, and to its end; memory is
/// what is resident beyond guest RAM; exits are KVM's own count, until that line. Container
/// runtimes are peers of isolab-oci: `RUNTIME run` of /bin/true, with the configuration of `runc
/// spec`, from the spawn to the end.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    scripts/kvm-host run --icount -- isolab bench startup --runs 5 --format json\n  \
    scripts/kvm-host run --icount -- isolab bench startup --peers qemu,firecracker\n  \
    isolab bench startup --peers runc,crun --runs 50")]
struct Startup {
    /// Levels, separated by commas; by default all of them, with --peers none.
    #[arg(long, value_name = "LEVEL,...", value_delimiter = ',')]
    isolation: Vec<Level>,
    /// Others, separated by commas: qemu, firecracker, cloud-hypervisor, kvmtool; runc, crun. Those
    /// that are not installed are left out.
    #[arg(long, value_name = "PEER,...", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Counted rounds.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Guest kernel: slim, stock, cloud, or a file; by default the first of these that exists.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Memory of every instance.
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_size)]
    memory: u64,
    /// The image.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
    /// Leave out networks and ports.
    #[arg(long)]
    no_network: bool,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write the results into this folder as well, as JSON and as tables.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The workload, which prints at least one line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_values = ["echo", "ready"])]
    command: Vec<OsString>,
}

impl Executable for Bench {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        match self.command {
            Command::Startup(args) => startup(args),
            Command::Image(args) => image::run(args),
            Command::Disk(args) => devices::disk(args),
            Command::Net(args) => devices::net(args),
        }
    }
}

fn startup(mut args: Startup) -> Result<ExitCode> {
    choose(&mut args.isolation, &args.peers, Peer::name)?;
    let (mut results, mut notes) = (Vec::new(), Vec::new());
    let (mut image, mut kernel_name, mut baseline) = (None, None, None);
    if !args.isolation.is_empty() {
        let found = Store::open_default()?.resolve(&args.image)?;
        image = Some((args.image.clone(), found.digest().to_owned()));
        let (subjects, name) = subjects(&args.isolation, args.kernel.as_deref())?;
        kernel_name = name;
        baseline = subjects.first().map(|subject| subject.name.clone());
        results.extend(measure_levels(&args, subjects)?);
    }
    let (machines, runtimes) = peers::sorted(&args.peers);
    if !runtimes.is_empty() {
        let program = package::executable(runtimes::OWN)?;
        let plan = RuntimesPlan { program, peers: runtimes, runs: args.runs };
        let found = with_progress(args.runs, |progress| runtimes::measure(&plan, progress))?;
        results.extend(found.results);
        notes.extend(found.notes);
    }
    if !machines.is_empty() {
        let kernel = guest_kernel(Level::Paravirt, args.kernel.as_deref())?;
        kernel_name.get_or_insert_with(|| kernel.to_string());
        let found = measure_machines(&args, machines, kernel)?;
        results.extend(found.results);
        notes.extend(found.notes);
    }
    let report = Report { host: Host::detect(image, kernel_name), results, notes };
    let text = tables(&report, baseline.as_deref());
    write_report("startup", &report, &text, args.format, args.out.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses what is named twice. Where neither levels nor peers are named, all levels take part.
fn choose<P: PartialEq + Copy>(
    levels: &mut Vec<Level>,
    peers: &[P],
    name: fn(P) -> &'static str,
) -> Result<()> {
    let twice = duplicate(levels).map(Level::name);
    if let Some(twice) = twice.or(duplicate(peers).map(name)) {
        bail!("{twice} is named twice");
    }
    if levels.is_empty() && peers.is_empty() {
        *levels = Level::ALL.to_vec();
    }
    Ok(())
}

/// The levels as subjects, and the guest kernels' names for the report.
fn subjects(levels: &[Level], kernel: Option<&str>) -> Result<(Vec<Subject>, Option<String>)> {
    let subject =
        |level: Level| Subject { name: level.name().to_owned(), level, options: Vec::new() };
    let mut subjects: Vec<Subject> = levels.iter().copied().map(subject).collect();
    if !levels.iter().any(|level| level.is_virtual_machine()) {
        return Ok((subjects, None));
    }
    // One kernel for both VM levels, or the kernels would be compared too.
    let shared = guest_kernel(Level::Paravirt, kernel)?;
    let mut used = shared.to_string();
    let with_kernel = |name: &str| vec!["--kernel".into(), name.into()];
    for subject in subjects.iter_mut().filter(|subject| subject.level.is_virtual_machine()) {
        subject.options = with_kernel(&shared.name);
    }
    let ordinary = guest_kernel(Level::Fullvirt, None)?;
    if kernel.is_none() && levels.contains(&Level::Fullvirt) && ordinary.name != shared.name {
        subjects.push(Subject {
            name: format!("{}-{}", Level::Fullvirt, ordinary.name),
            options: with_kernel(&ordinary.name),
            level: Level::Fullvirt,
        });
        used = format!("{used}; {ordinary} where the subject says so");
    }
    Ok((subjects, Some(used)))
}

fn measure_levels(args: &Startup, subjects: Vec<Subject>) -> Result<Vec<Measurement>> {
    let plan = StartupPlan {
        program: own_program()?,
        subjects,
        runs: args.runs,
        options: vec!["--memory".into(), args.memory.to_string().into()],
        image: args.image.clone(),
        command: args.command.clone(),
    };
    // Before the other part, which waits for everything that it has started.
    let mut measured = match args.no_network {
        true => Vec::new(),
        false => with_progress(args.runs, |progress| service::measure(&plan, progress))?,
    };
    measured.extend(with_progress(args.runs, |progress| startup::measure(&plan, progress))?);
    Ok(measured)
}

fn measure_machines(
    args: &Startup,
    peers: Vec<machines::Peer>,
    kernel: GuestKernel,
) -> Result<Findings> {
    let bzimage = kernel.image.with_file_name("bzImage");
    let plan = machines::startup::MachinesPlan {
        program: own_program()?,
        peers,
        runs: args.runs,
        bzimage: bzimage.is_file().then_some(bzimage),
        kernel: kernel.image,
        memory: args.memory,
        cpus: 1,
    };
    Ok(with_progress(args.runs, |progress| machines::startup::measure(&plan, progress))?)
}

/// The `isolab` whose starts are measured: the one of this package.
fn own_program() -> Result<PathBuf> {
    Ok(package::executable("isolab")?)
}

/// Shows the rounds on a terminal.
fn with_progress<T>(runs: u32, measure: impl FnOnce(&dyn Fn(u32)) -> T) -> T {
    let terminal = io::stderr().is_terminal();
    let outcome = measure(&|round| {
        if terminal {
            eprint!("\rround {round} of {runs}");
        }
    });
    if terminal {
        eprint!("\r\x1b[K");
    }
    outcome
}

/// Prints a report, and writes it into `folder` as NAME.json and NAME.txt.
fn write_report(
    name: &str,
    report: &Report,
    text: &str,
    format: Format,
    folder: Option<&Path>,
) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    match format {
        Format::Json => println!("{json}"),
        Format::Table => print!("{text}"),
    }
    if let Some(folder) = folder {
        let failed = || format!("cannot write the results into {}", folder.display());
        fs::create_dir_all(folder).with_context(failed)?;
        fs::write(folder.join(format!("{name}.json")), json + "\n").with_context(failed)?;
        fs::write(folder.join(format!("{name}.txt")), text).with_context(failed)?;
    }
    Ok(())
}

/// A table for each metric, under its title; ratios are to `baseline`.
fn tables_of(report: &Report, metrics: &[(&str, &str)], baseline: &str) -> String {
    let tables = metrics.iter().map(|(metric, title)| {
        let table = report.table(metric, baseline);
        format!("{title} (ratio: of medians, to {baseline})\n{table}\n\n")
    });
    tables.collect()
}

/// What was left out, and why, a line each.
fn notes_of(report: &Report) -> String {
    report.notes.iter().flat_map(|note| [note, "\n"]).collect()
}

fn tables(report: &Report, first_level: Option<&str>) -> String {
    let mut text = format!("{}\n\n", report.host);
    if let Some(level) = first_level {
        let metrics = [
            (startup::TO_FIRST_OUTPUT, "From spawn to the first output line, ms"),
            (startup::TO_EXIT, "From spawn to exit, ms"),
            (startup::TO_GONE, "From spawn until nothing of it is left, ms"),
        ];
        text += &tables_of(report, &metrics, level);
        if report.summary(level, service::TO_PORT).is_some() {
            let metrics = [
                (
                    service::WITHOUT_NETWORK,
                    "Without a network, from spawn to the first output line, ms",
                ),
                (service::ON_NETWORK, "On a network, from spawn to the first output line, ms"),
                (service::TO_DETACHED, "From spawn of run -d to its end, ms"),
                (service::TO_PORT, "From spawn of run -d -p to a connection from the host, ms"),
            ];
            text += &tables_of(report, &metrics, level);
        }
    }
    if report.summary(machines::OWN, startup::TO_GUEST_INIT).is_some() {
        let metrics = [
            (startup::TO_GUEST_INIT, "From spawn of the VMM to the guest's init, ms"),
            (startup::TO_EXIT, "From spawn of the VMM to its end, ms"),
            (startup::TO_GONE, "From spawn of the VMM until nothing of it is left, ms"),
            (machines::startup::MEMORY_AT_INIT, "Resident beyond guest RAM at init, KiB"),
            (machines::startup::PRIVATE_AT_INIT, "Of it private and dirty, KiB"),
            (machines::startup::MEMORY_OVERHEAD, "Resident beyond guest RAM 1 s after init, KiB"),
            (machines::startup::PRIVATE_OVERHEAD, "Of it private and dirty, KiB"),
            (machines::startup::EXITS, "Exits until the guest's init"),
        ];
        text += &tables_of(report, &metrics, machines::OWN);
    }
    if report.summary(runtimes::OWN, startup::TO_EXIT).is_some() {
        let metrics = [
            (startup::TO_EXIT, "From spawn of the runtime to its end, ms"),
            (runtimes::PEAK_MEMORY, "Peak of resident memory, KiB"),
        ];
        text += &tables_of(report, &metrics, runtimes::OWN);
    }
    if first_level.is_some() {
        let phases = report.medians(&startup::PHASES);
        text += &format!("Where the time to the first output line goes, medians, ms\n{phases}\n");
    }
    text + &notes_of(report)
}

fn duplicate<T: PartialEq + Copy>(items: &[T]) -> Option<T> {
    items.iter().enumerate().find(|(i, item)| items[..*i].contains(item)).map(|(_, item)| *item)
}
