//! `isolab bench all`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_bench::report::{self, Findings, Report};
use isolab_bench::workloads::probes::Kind;
use isolab_bench::workloads::startup::{self, StartupPlan};
use isolab_bench::{Host, subjects};
use isolab_command::format::parse_size;
use isolab_images::Store;
use isolab_isolation::Level;

use super::running::Running;
use super::{choose, own_program, probes, remarks_of};

/// Of which the time is shared.
const PARTS: u32 = 3;
/// Where the report goes if nothing else is said.
const FOLDER: &str = "bench-results";
/// A start of the least that an image has.
const COMMAND: [&str; 2] = ["echo", "ready"];

/// The price list: startup, CPU and memory at every level, as one report with plots.
///
/// Each level has its turn in each round; the first level takes part twice, under two names, to
/// test the benchmark itself. Ctrl-C keeps what was measured, and --resume goes on with it. The
/// report is report.json, report.txt and report.html in --out, by default bench-results.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench all --isolation process,container --time 10m\n  \
    scripts/kvm-host run --icount --out results -- isolab bench all --quick --out results")]
pub struct All {
    /// Levels, separated by commas; by default all of them.
    #[arg(long, value_name = "LEVEL,...", value_delimiter = ',')]
    isolation: Vec<Level>,
    #[command(flatten)]
    running: Running,
    /// Guest kernel: slim, stock, cloud, or a file; by default the first of these that exists.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Memory of every instance.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    memory: u64,
    /// Percent of the operations that a probe does by default.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    operations: Option<u32>,
    /// The image that is started.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
}

/// Measures, and prints and writes the report.
///
/// # Errors
/// What the operator should read.
pub fn run(mut args: All) -> Result<ExitCode> {
    choose(&mut args.isolation, &[])?;
    let folder = args.running.output.out.get_or_insert_with(|| PathBuf::from(FOLDER)).clone();
    let image = Store::open_default()?.resolve(&args.image)?;
    let image = (args.image.clone(), image.digest().to_owned());
    let (subjects, kernel) = subjects::levels(&args.isolation, args.kernel.as_deref(), true)?;
    let mut session = args.running.begin("report", PARTS)?;
    let plan = StartupPlan {
        program: own_program()?,
        subjects: subjects.clone(),
        options: vec!["--memory".into(), args.memory.to_string().into()],
        image: args.image.clone(),
        command: COMMAND.map(Into::into).into(),
    };
    let mut findings: Findings = session.runner.run(&mut startup::Startup::new(plan))?;
    let percent = args.operations.unwrap_or(probes::percent(args.running.quick));
    for kind in [Kind::Cpu, Kind::Memory] {
        if !findings.interrupted {
            let runner = &mut session.runner;
            findings.extend(probes::measure(kind, subjects.clone(), args.memory, percent, runner)?);
        }
    }
    let report = session.report(Host::detect(Some(image), kernel), findings);
    let text = format!("{}report: {}\n", text(&report), folder.join("report.html").display());
    session.finish(&report, &text, &args.running.output)
}

fn text(report: &Report) -> String {
    let tables = report.benchmarks().into_iter().map(|benchmark| {
        let table = report::by_metric(report, benchmark);
        format!("{benchmark}: medians, and ratios to the first level\n{table}\n\n")
    });
    format!("{}\n\n{}{}", report.host, tables.collect::<String>(), remarks_of(report))
}
