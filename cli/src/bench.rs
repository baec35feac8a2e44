//! `isolab bench`

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use isolab_bench::startup::{self, Plan, Subject};
use isolab_bench::{Host, Report};
use isolab_images::Store;
use isolab_isolation::{Level, guest_kernel};

use crate::format::Format;

/// Measure the levels of isolation side by side.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Startup(Startup),
}

/// From spawning `isolab run` to the workload's first output line and to its end.
///
/// One round warms up, then the levels are measured in turn, A B C D A B C D. Both VM levels run
/// one and the same kernel; where that is not the stock one, fullvirt-stock is one more subject:
/// an unmodified OS on emulated hardware.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    scripts/kvm-host run --icount -- isolab bench startup --runs 5 --format json")]
struct Startup {
    /// Levels, separated by commas.
    #[arg(long, value_name = "LEVEL,...", value_delimiter = ',', default_values_t = Level::ALL)]
    isolation: Vec<Level>,
    /// Counted rounds.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Guest kernel: slim, stock, cloud, or a file; by default the first of these that exists.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Memory of every instance.
    #[arg(long, value_name = "SIZE", default_value = "128M")]
    memory: String,
    /// The image.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The workload, which prints at least one line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_values = ["echo", "ready"])]
    command: Vec<OsString>,
}

/// Runs the command.
pub fn run(bench: Bench) -> Result<ExitCode> {
    match bench.command {
        Command::Startup(args) => startup(args),
    }
}

fn startup(args: Startup) -> Result<ExitCode> {
    if let Some(twice) = duplicate(&args.isolation) {
        bail!("--isolation names {twice} twice");
    }
    let image = Store::open_default()?.resolve(&args.image)?;
    let (subjects, kernel_name) = subjects(&args.isolation, args.kernel.as_deref())?;
    let host = Host::detect(args.image.clone(), image.digest().to_owned(), kernel_name);
    let plan = Plan {
        program: env::current_exe().context("cannot find isolab's own program file")?,
        subjects,
        runs: args.runs,
        options: vec!["--memory".into(), args.memory.into()],
        image: args.image,
        command: args.command,
    };
    let results = startup::measure(&plan, |round| {
        if io::stderr().is_terminal() {
            eprint!("\rround {round} of {}", plan.runs);
        }
    })?;
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let report = Report { host, results };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Table => print_tables(&report, &plan.subjects[0].name),
    }
    Ok(ExitCode::SUCCESS)
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

fn print_tables(report: &Report, baseline: &str) {
    println!("{}\n", report.host);
    for (metric, title) in [
        (startup::TO_FIRST_OUTPUT, "From spawn to the first output line, ms"),
        (startup::TO_EXIT, "From spawn to exit, ms"),
    ] {
        println!("{title} (ratio: of medians, to {baseline})");
        println!("{}\n", report.table(metric, baseline));
    }
    println!("Where the time to the first output line goes, medians, ms");
    println!("{}", report.medians(&startup::PHASES));
}

fn duplicate(levels: &[Level]) -> Option<Level> {
    levels.iter().enumerate().find(|(i, level)| levels[..*i].contains(level)).map(|(_, l)| *l)
}
