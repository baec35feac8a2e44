//! `isolab bench compare`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_bench::report::{Changes, Report, SCHEMA, Verdict, changes, plain_table};
use isolab_command::format::Format;

/// What has changed from one report to another, beyond noise.
///
/// Each metric that both have is put to a permutation test of its samples' ranks; of all that are
/// then called changed, at most 5 % are expected to be chance's. Reports of unlike hosts have no
/// ratios.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    isolab bench compare before/report.json after/report.json")]
pub struct Compare {
    /// The JSON of the first report.
    #[arg(value_name = "A.json")]
    before: PathBuf,
    /// The JSON of the second.
    #[arg(value_name = "B.json")]
    after: PathBuf,
    /// Show what has not changed, too.
    #[arg(long)]
    all: bool,
    /// How to print the changes.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Compares, and prints.
///
/// # Errors
/// What the operator should read.
pub fn run(args: Compare) -> Result<ExitCode> {
    let found = changes(&load(&args.before)?, &load(&args.after)?);
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Format::Table => print!("{}", text(&found, args.all)),
    }
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> Result<Report> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of `isolab bench`", path.display()))?;
    if report.schema != SCHEMA {
        bail!("{} has the schema `{}`; this isolab reads {SCHEMA}", path.display(), report.schema);
    }
    Ok(report)
}

fn text(found: &Changes, all: bool) -> String {
    let header = [
        "benchmark",
        "subject",
        "metric",
        "before",
        "after",
        "unit",
        "ratio",
        "95 % interval",
        "p",
    ];
    let mut table = plain_table(&header);
    let is_shown = |verdict| all || verdict != Verdict::NoDifference;
    let mut shown = 0;
    for it in found.changes.iter().filter(|it| is_shown(it.verdict)) {
        shown += 1;
        let interval = it.ratio_interval.map(|at| format!("{:.2} to {:.2}", at.low, at.high));
        table.add_row([
            it.benchmark.clone(),
            it.subject.clone(),
            it.metric.clone(),
            format!("{:.2}", it.before),
            format!("{:.2}", it.after),
            it.unit.clone(),
            it.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x")),
            interval.unwrap_or_else(|| "-".to_owned()),
            format!("{:.4}", it.p),
        ]);
    }
    let changed = found.changes.iter().filter(|it| it.verdict != Verdict::NoDifference).count();
    let rows = if shown > 0 { format!("{table}\n") } else { String::new() };
    let notes: String = found.notes.iter().flat_map(|note| [note, "\n"]).collect();
    format!("{rows}{changed} of {} metrics changed beyond noise\n{notes}", found.changes.len())
}
