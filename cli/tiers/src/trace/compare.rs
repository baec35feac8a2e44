//! `isolab tiers compare FILE...`: traces of one request at several levels, side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;

use super::clock::Offset;
use super::cost::Counters;
use super::diagram::{fill, ms_number};
use super::story::{Lane, Span};

/// Columns of the longest bar.
const WIDTH: usize = 60;

/// Show traces of one request side by side: where its time went at each level, and what it cost there.
///
/// The files are what `isolab tiers trace PATH --format json` printed, of shops at several levels. Ratios are to the first
/// one's. Times are of one request each: trace some, and compare what is usual.
#[derive(Args)]
#[command(
    after_help = "Example:\n  isolab tiers trace /api/products/7 --format json >container.json\n  \
    isolab tiers compare process.json container.json paravirt.json fullvirt.json"
)]
pub struct Command {
    /// Traces, as JSON.
    #[arg(required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What is compared of a trace.
#[derive(Debug, Deserialize)]
struct Trace {
    request: String,
    status: u16,
    whole: Duration,
    levels: Vec<(String, String)>,
    spans: Vec<Span>,
    clock: Option<Offset>,
    costs: Vec<(String, Counters)>,
}

/// Runs the command.
pub fn run(args: &Command) -> Result<ExitCode> {
    let traces = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    let request = &traces[0].request;
    for (trace, file) in traces.iter().zip(&args.files) {
        let (shown, other) = (file.display(), &trace.request);
        ensure!(other == request, "{shown} is a trace of `{other}`, and not of `{request}`");
    }
    print!("{}", draw(&traces));
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<Trace> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no trace in JSON", file.display()))
}

fn draw(traces: &[Trace]) -> String {
    let names: Vec<String> = traces.iter().map(Trace::level).collect();
    let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let longest = traces.iter().map(|trace| trace.whole).max().unwrap_or_default();
    let first = traces[0].whole.as_secs_f64();
    let mut text = format!("{}\n\n", traces[0].request);
    for (trace, name) in traces.iter().zip(&names) {
        let bar = bar(trace, longest);
        let ratio = trace.whole.as_secs_f64() / first;
        text += &format!(
            "{name:name_width$}  {bar:WIDTH$}  {} ms  {ratio:.2} x  ({})\n",
            ms_number(trace.whole),
            trace.status
        );
    }
    let lanes = Lane::ALL.map(|lane| format!("{} {lane}", fill(lane)));
    text += &format!("{:name_width$}  {}\n\n", "", lanes.join("   "));
    format!("{text}{}\n{}", table(traces, &names), clocks(traces, &names))
}

/// The whole time, as long as it is of the longest, in parts by who had the request.
fn bar(trace: &Trace, longest: Duration) -> String {
    let columns = |time: Duration| {
        let part = time.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE);
        (part * WIDTH as f64).round() as usize
    };
    // By the end of each part, so that what is rounded does not add up.
    let (mut bar, mut end) = (String::new(), Duration::ZERO);
    for (lane, time) in Lane::ALL.into_iter().zip(trace.shares()) {
        let begin = columns(end);
        end += time;
        bar += &fill(lane).repeat(columns(end) - begin);
    }
    bar
}

/// Milliseconds of each step, and what came to the counters of each tier.
fn table(traces: &[Trace], names: &[String]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([&["WHERE".to_owned(), "ms OF".to_owned()], names].concat());
    for (lane, name, nth) in steps(traces) {
        let times = traces.iter().map(|trace| {
            let time = trace.step(lane, &name, nth);
            time.map_or("--".to_owned(), ms_number)
        });
        table.add_row([lane.to_string(), name.clone()].into_iter().chain(times));
    }
    for tier in ["web", "app", "db"] {
        for (what, count) in COUNTED {
            let counts: Vec<_> = traces.iter().map(|trace| trace.cost(tier, count)).collect();
            // No level of these counts it.
            if counts.iter().all(Option::is_none) {
                continue;
            }
            let counts =
                counts.iter().map(|count| count.map_or("--".to_owned(), |count| count.to_string()));
            table.add_row([tier.to_owned(), what.to_owned()].into_iter().chain(counts));
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

type Count = fn(&Counters) -> Option<u64>;

/// What is counted of a tier, as `trace` has it.
const COUNTED: [(&str, Count); 6] = [
    ("read/write calls", |it| it.reads_and_writes),
    ("waits", |it| it.waits),
    ("preempted", |it| it.preemptions),
    ("CPU us", |it| it.cpu.map(|nanoseconds| nanoseconds / 1000)),
    ("exits", |it| it.exits),
    ("interrupts", |it| it.interrupts),
];

/// All steps that a trace has, in the order in which they are first met: where, what, and the how many-th of that name.
fn steps(traces: &[Trace]) -> Vec<(Lane, String, usize)> {
    let mut steps = Vec::new();
    for trace in traces {
        for (at, span) in trace.spans.iter().enumerate() {
            let is_same = |it: &&Span| (it.lane, &it.name) == (span.lane, &span.name);
            let nth = trace.spans[..at].iter().filter(is_same).count();
            let step = (span.lane, span.name.clone(), nth);
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    steps
}

fn clocks(traces: &[Trace], names: &[String]) -> String {
    let known = traces.iter().zip(names).filter_map(|(trace, name)| {
        let error = trace.clock?.error as f64 / 1e6;
        Some(format!("{name} ±{error:.3} ms"))
    });
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        return String::new();
    }
    format!("one clock: when app and db had it is known to {}\n", known.join(", "))
}

impl Trace {
    /// The level, or those of web, app and db where they differ.
    fn level(&self) -> String {
        let mut levels: Vec<&str> = self.levels.iter().map(|(_, level)| level.as_str()).collect();
        levels.dedup();
        levels.join("/")
    }

    /// How long each had the request, but for the time in which it waited for the next.
    fn shares(&self) -> [Duration; 4] {
        let of = |lane: Lane| self.spans.iter().filter(move |span| span.lane == lane);
        let sum = |lane: Lane| of(lane).map(|span| span.time).sum::<Duration>();
        // The parts of the application are within its whole.
        let app = of(Lane::App).find(|span| span.name == "app").map(|span| span.time);
        let (web, app, db) = (sum(Lane::Web), app.unwrap_or_default(), sum(Lane::Db));
        let within = [self.whole, web, app, db, Duration::ZERO];
        [0, 1, 2, 3].map(|at| within[at].saturating_sub(within[at + 1]))
    }

    fn step(&self, lane: Lane, name: &str, nth: usize) -> Option<Duration> {
        let mut same = self.spans.iter().filter(|it| it.lane == lane && it.name == name);
        same.nth(nth).map(|span| span.time)
    }

    /// What came to a counter of all instances of a tier, which are called PROJECT-TIER-NUMBER.
    fn cost(&self, tier: &str, count: Count) -> Option<u64> {
        let of_tier = self.costs.iter().filter(|(name, _)| name.rsplit('-').nth(1) == Some(tier));
        of_tier.filter_map(|(_, counters)| count(counters)).reduce(|sum, count| sum + count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::story;
    use super::*;

    fn trace(factor: u32, level: &'static str) -> Trace {
        let mut story = story();
        story.whole *= factor;
        story.levels[0].1 = level;
        story.spans.iter_mut().for_each(|span| span.time *= factor);
        serde_json::from_value(serde_json::to_value(&story).unwrap()).unwrap()
    }

    #[test]
    fn bars_are_as_long_as_the_times_of_each() {
        let traces = [trace(1, "process"), trace(2, "paravirt")];
        // 4 ms are 60 columns: 400 us of the client, 600 of web, 600 of app and 400 of db.
        let parts = |bar: &str| Lane::ALL.map(|lane| bar.matches(fill(lane)).count());
        let bars = traces.each_ref().map(|trace| parts(&bar(trace, Duration::from_millis(4))));
        assert_eq!(bars, [[6, 9, 9, 6], [12, 18, 18, 12]]);
        let text = draw(&traces);
        assert!(text.contains("2.000 ms  1.00 x") && text.contains("4.000 ms  2.00 x"), "{text}");
    }

    #[test]
    fn each_step_is_a_row_and_each_trace_a_column() {
        let mut traces = [trace(1, "process"), trace(2, "paravirt")];
        let again = traces[1].spans[3].clone();
        traces[1].spans.push(again);
        traces[1].costs[0].1.exits = Some(70);
        let text = draw(&traces);
        let rows: Vec<Vec<&str>> = text.lines().map(|it| it.split_whitespace().collect()).collect();
        for row in [
            &["WHERE", "ms", "OF", "process", "paravirt"][..],
            &["client", "name", "web", "0.200", "0.400"],
            &["db", "SELECT", "0.400", "0.800"],
            &["db", "SELECT", "--", "0.800"],
            &["web", "waits", "3", "3"],
            &["web", "exits", "--", "70"],
        ] {
            assert!(rows.iter().any(|it| it == row), "no {row:?} in {text}");
        }
        assert!(!text.contains("interrupts"), "{text}");
        assert!(text.contains("process ±0.040 ms"), "{text}");
    }

    #[test]
    fn levels_that_differ_are_all_named() {
        let mut mixed = trace(1, "container");
        mixed.levels.push(("shop-app-1".to_owned(), "process".to_owned()));
        assert_eq!(mixed.level(), "container/process");
    }
}
