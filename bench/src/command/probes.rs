//! `isolab bench cpu` and `isolab bench memory`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_bench::report::{self, Findings};
use isolab_bench::runner::Runner;
use isolab_bench::workloads::probes::{Kind, Probes, ProbesPlan};
use isolab_bench::{Host, subjects};
use isolab_guest::package;

use super::levels::Levels;
use super::running::Running;
use super::{own_program, remarks_of};

/// Of the probe's operations, with --quick.
const QUICK_PERCENT: u32 = 10;

/// Options of both.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    levels: Levels,
    #[command(flatten)]
    running: Running,
    /// Percent of the operations that a probe does by default.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    operations: Option<u32>,
}

/// The kernel's and processor's services, from inside an instance of each level.
///
/// A small static program does a fixed number of operations of each kind; a sample is the mean
/// time of one, and the samples are of as many instances. `compute` is the control: no kernel
/// takes part in it, so that it must cost the same everywhere; where it does not, no other figure
/// of the level has a ratio. The first level is measured twice, under two names, and what the
/// benchmark says of the two is part of the report.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench cpu --isolation process,container --time 2m --out results\n  \
    scripts/kvm-host run --icount -- isolab bench cpu --quick")]
pub struct Cpu {
    #[command(flatten)]
    common: Common,
}

/// Caches, memory and address translation, from inside an instance of each level.
///
/// The time of a load whose address is the load's before it, in 16 KiB to 64 MiB; of one load in
/// each page of 64 MiB, with pages of 4 KiB and, where the kernel gives them, of 2 MiB; and of a
/// copy of 4 KiB. `load_16k` is the control, which the first cache answers at each level.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench memory --isolation process,container\n  \
    scripts/kvm-host run -- isolab bench memory --quick")]
pub struct Memory {
    #[command(flatten)]
    common: Common,
}

/// Runs `isolab bench cpu`.
///
/// # Errors
/// What the operator should read.
pub fn cpu(args: Cpu) -> Result<ExitCode> {
    run(Kind::Cpu, args.common)
}

/// Runs `isolab bench memory`.
///
/// # Errors
/// What the operator should read.
pub fn memory(args: Memory) -> Result<ExitCode> {
    run(Kind::Memory, args.common)
}

fn run(kind: Kind, args: Common) -> Result<ExitCode> {
    let mut session = args.running.begin(kind.name(), 1)?;
    let (subjects, kernel) = args.levels.subjects(true)?;
    let percent = args.operations.unwrap_or(percent(args.running.quick));
    let findings = measure(kind, subjects, args.levels.memory, percent, &mut session.runner)?;
    let report = session.report(Host::detect(None, kernel), findings);
    let table = report::by_metric(&report, kind.name());
    let text = format!(
        "{}\n\nMedians of the time of one operation (ratios to the first level)\n{table}\n{}",
        report.host,
        remarks_of(&report)
    );
    session.finish(&report, &text, &args.running.output)
}

/// Measures what `kind` says at `subjects`.
///
/// # Errors
/// There is no probe, or no image of it can be made.
pub fn measure(
    kind: Kind,
    subjects: Vec<subjects::Level>,
    memory: u64,
    percent: u32,
    runner: &mut Runner,
) -> Result<Findings> {
    let probe = package::executable("isolab-probe")?;
    let plan = ProbesPlan { program: own_program()?, probe, kind, percent, subjects, memory };
    Ok(runner.run(&mut Probes::new(plan)?)?)
}

/// Percent of the operations of a whole run, or of a quick one.
pub fn percent(quick: bool) -> u32 {
    if quick { QUICK_PERCENT } else { 100 }
}
