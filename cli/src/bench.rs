//! `isolab bench`

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use isolab_bench::startup::{self, Plan};
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
/// one and the same kernel.
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
    let mut options: Vec<OsString> = vec!["--memory".into(), args.memory.into()];
    let mut kernel_name = None;
    if args.isolation.iter().any(|level| level.is_virtual_machine()) {
        // One kernel for both VM levels, or the kernels would be compared too.
        let kernel = guest_kernel(Level::Paravirt, args.kernel.as_deref())?;
        options.extend(["--kernel".into(), kernel.name.clone().into()]);
        let release = kernel.release.as_deref().unwrap_or("unknown release");
        kernel_name = Some(format!("{} ({release}) at both VM levels", kernel.name));
    }
    let host = Host::detect(args.image.clone(), image.digest().to_owned(), kernel_name);
    let plan = Plan {
        program: env::current_exe().context("cannot find isolab's own program file")?,
        levels: args.isolation,
        runs: args.runs,
        options,
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
        Format::Table => print_tables(&report, plan.levels[0]),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_tables(report: &Report, baseline: Level) {
    println!("{}\n", report.host);
    for (metric, title) in [
        (startup::TO_FIRST_OUTPUT, "From spawn to the first output line, ms"),
        (startup::TO_EXIT, "From spawn to exit, ms"),
    ] {
        println!("{title} (ratio: of medians, to {baseline})");
        println!("{}\n", report.table(metric, baseline.name()));
    }
    println!("Where the time to the first output line goes, medians, ms");
    println!("{}", report.medians(&startup::PHASES));
}

fn duplicate(levels: &[Level]) -> Option<Level> {
    levels.iter().enumerate().find(|(i, level)| levels[..*i].contains(level)).map(|(_, l)| *l)
}
