//! `isolab bench density`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_bench::workloads::density::{Density, DensityPlan};
use isolab_bench::{Host, report};
use isolab_images::Store;

use super::levels::Levels;
use super::running::Running;
use super::{own_program, remarks_of};

/// Many instances of a level beside each other: the time of each further start, and the memory of all.
///
/// Memory is the mean proportional set size of an instance's processes: what several of them share counts
/// in parts. What the kernel keeps for them elsewhere is not in it.
#[derive(Debug, Args)]
#[command(
    mut_arg("memory", |it| it.default_value("128M")),
    after_help = "Examples:\n  \
    isolab bench density --isolation process,container --instances 100 --runs 5\n  \
    scripts/kvm-host run --memory 8192 -- isolab bench density --runs 4"
)]
pub struct DensityBench {
    #[command(flatten)]
    levels: Levels,
    #[command(flatten)]
    running: Running,
    /// Instances beside each other.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    instances: u32,
    /// The image; it has a shell.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
}

/// Measures, and prints and writes the report.
///
/// # Errors
/// What the operator should read.
pub fn run(args: DensityBench) -> Result<ExitCode> {
    let image = Store::open_default()?.resolve(&args.image)?;
    let image = (args.image.clone(), image.digest().to_owned());
    let (subjects, kernel) = args.levels.subjects(false)?;
    let mut session = args.running.begin("density", 1)?;
    let plan = DensityPlan {
        program: own_program()?,
        subjects,
        instances: args.instances,
        options: args.levels.options(),
        image: args.image.clone(),
    };
    let findings = session.runner.run(&mut Density::new(plan))?;
    let report = session.report(Host::detect(Some(image), kernel), findings);
    let text = format!(
        "{}\n\nMedians with {} instances beside each other (ratios to the first level)\n{}\n{}",
        report.host,
        args.instances,
        report::by_metric(&report, "density"),
        remarks_of(&report)
    );
    session.finish(&report, &text, &args.running.output)
}
