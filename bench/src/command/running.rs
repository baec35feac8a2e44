//! How long a benchmark runs, where its results go, and what is written there: the same for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use isolab_bench::Host;
use isolab_bench::report::{self, Findings, Origin, Report};
use isolab_bench::runner::{Interrupt, Journal, Progress, Rounds, Runner};
use isolab_command::format::Format;

/// Rounds where nothing else is asked for.
const ROUNDS: u32 = 10;
/// With --quick: enough for a verdict.
const QUICK: u32 = 5;
/// As a shell has it for a command that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// How long, and where to.
#[derive(Debug, Args)]
pub struct Running {
    /// Counted rounds, in each of which every subject has its turn [default: 10, with --quick 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Instead: as many rounds as fit into this time, at least 4. For example 90s, 10m, 1h.
    #[arg(long, value_name = "TIME", conflicts_with = "runs", value_parser = parse_time)]
    time: Option<Duration>,
    /// Few rounds and little work, for a first look.
    #[arg(long, conflicts_with = "time")]
    pub quick: bool,
    #[command(flatten)]
    pub output: Output,
}

/// Where results go.
#[derive(Debug, Args)]
pub struct Output {
    /// How to print the results.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write the results into this folder as well, as JSON, as tables and as a page.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with a run that was ended before its time: what is in --out and was measured by the
    /// same command is not measured again.
    #[arg(long, requires = "out")]
    resume: bool,
    /// How to tell of a run meanwhile, on standard error.
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    progress: Told,
}

/// How a run is told of meanwhile.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Told {
    /// Each turn in one line that changes, on a terminal only.
    #[default]
    Auto,
    /// Each round in a line of its own, anywhere.
    Plain,
    /// Not at all.
    None,
}

impl From<Told> for Progress {
    fn from(told: Told) -> Self {
        match told {
            Told::Auto => Self::on_terminal(),
            Told::Plain => Self::Lines,
            Told::None => Self::Silent,
        }
    }
}

/// What two commands that measure the same have in common: all words but those about how a run is told of.
fn plan(command: &[String]) -> String {
    let mut kept = Vec::new();
    let mut words = command.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        match name {
            "--progress" | "--format" if name == word => drop(words.next()),
            "--progress" | "--format" => (),
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

/// A benchmark under way.
pub struct Session {
    pub runner: Runner,
    name: &'static str,
    origin: Origin,
    journal: Option<PathBuf>,
}

impl Running {
    /// Begins the benchmark `name`, of which `parts` share the time.
    pub fn begin(&self, name: &'static str, parts: u32) -> Result<Session> {
        let rounds = match self.time {
            Some(time) => Rounds::Within(time / parts),
            None => Rounds::Fixed(self.runs.unwrap_or(if self.quick { QUICK } else { ROUNDS })),
        };
        self.output.begin(name, rounds)
    }
}

impl Output {
    /// Begins the benchmark `name`.
    pub fn begin(&self, name: &'static str, rounds: Rounds) -> Result<Session> {
        let interrupt = Interrupt::by_signal().context("cannot wait for signals")?;
        let words = std::env::args().skip(1).filter(|word| word != "--resume");
        let command: Vec<String> =
            ["isolab", "bench"].map(str::to_owned).into_iter().chain(words).collect();
        let journal = self.out.as_ref().map(|folder| folder.join(format!("{name}.journal")));
        let kept = match &journal {
            None => Journal::none(),
            Some(path) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)
                        .with_context(|| format!("cannot make {}", folder.display()))?;
                }
                Journal::open(path, &plan(&command), self.resume)?
            }
        };
        let begun = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let origin = Origin { begun, version: env!("CARGO_PKG_VERSION").to_owned(), command };
        let progress = self.progress.into();
        let runner = Runner { rounds, progress, interrupt, journal: kept };
        Ok(Session { runner, name, origin, journal })
    }
}

impl Session {
    /// The report of what was found.
    pub fn report(&self, host: Host, findings: Findings) -> Report {
        Report::new(self.origin.clone(), host, findings)
    }

    /// Prints a report, whose tables are `text`, and writes it into the folder that was named, as NAME.json, NAME.txt
    /// and NAME.html.
    pub fn finish(self, report: &Report, text: &str, output: &Output) -> Result<ExitCode> {
        let json = serde_json::to_string_pretty(report)?;
        match output.format {
            Format::Json => println!("{json}"),
            Format::Table => print!("{text}"),
        }
        if let Some(folder) = &output.out {
            for (kind, content) in
                [("json", json + "\n"), ("txt", text.to_owned()), ("html", report::page(report))]
            {
                write(&folder.join(format!("{}.{kind}", self.name)), &content)?;
            }
        }
        if report.interrupted {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if let Some(path) = &self.journal {
            // There is nothing to go on with. Should it stay, it is a file more.
            let _ = fs::remove_file(path);
        }
        if let Some(failure) = report.failures.first() {
            bail!("{} of {} failed: {}", failure.benchmark, failure.subject, failure.error);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// `90s`, `10m`, `1h`: from a second to a week.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("`{text}` is not a time like 90s, 10m or 1h")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a time like 90s"))?;
    match number.checked_mul(unit) {
        Some(seconds @ 1..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text} is out of range: a second to a week")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "s", "0s", "-1m", "1.5h", "1000h", "99999999999999999999s"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn how_a_run_is_told_of_is_no_part_of_its_plan() {
        let of = |text: &str| plan(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let measured = "isolab bench disk --runs 3 --out there";
        for told in [
            "isolab bench disk --progress plain --runs 3 --out there",
            "isolab bench disk --runs 3 --format=json --out there --progress=none",
            "isolab bench disk --runs 3 --out there --format json",
        ] {
            assert_eq!(of(told), measured, "{told}");
        }
        assert_ne!(of("isolab bench disk --runs 4 --out there"), measured);
    }
}
