//! What services write, a line of ours for each of theirs: `isolab compose logs`, and `up` in the foreground.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use anyhow::{Result, bail};
use clap::Args;
use isolab_compose::instances::service;
use isolab_instances::log::{LogEntry, LogQuery, Stream, read};
use isolab_instances::time::{NoTimestamp, Timestamp};
use isolab_instances::{Instance, InstanceError};

use crate::scope::Scope;

/// Print what services have written.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  isolab compose logs -f --tail 20 web\n  isolab compose logs --since 10m -t"
)]
pub struct Logs {
    /// Go on with what they write, until all have ended.
    #[arg(long, short)]
    follow: bool,
    /// Not what is older: 2026-11-28T09:30:00Z, seconds since 1970, or how long ago, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Not what is newer, likewise.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// The last lines of each only, so many of them; all is all.
    #[arg(long, short = 'n', value_name = "LINES", value_parser = parse_tail)]
    tail: Option<usize>,
    /// Which of a service's instances.
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    #[command(flatten)]
    shown: Shown,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// How lines look.
#[derive(Clone, Debug, Default, Args)]
pub struct Shown {
    /// Without colours, also on a terminal.
    #[arg(long)]
    no_color: bool,
    /// Without the instance's name before each line.
    #[arg(long)]
    no_log_prefix: bool,
    /// Each line's time before it.
    #[arg(long)]
    timestamps: bool,
}

fn parse_time(text: &str) -> Result<Timestamp, NoTimestamp> {
    Timestamp::parse_relative(text)
}

/// `all` is more than there can be.
fn parse_tail(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        count => count.parse().map_err(|_| "expected a number, or all".to_owned()),
    }
}

/// Runs the command.
pub fn run(scope: &Scope, args: &Logs) -> Result<ExitCode> {
    let (_, mut instances) = scope.instances(&args.services)?;
    instances
        .retain(|it| args.index.is_none_or(|index| isolab_compose::instances::number(it) == index));
    let query = LogQuery {
        since: args.since,
        until: args.until,
        tail: args.tail.filter(|count| *count != usize::MAX),
        follow: args.follow,
    };
    show(&instances, &query, &args.shown, io::stdout().is_terminal())?;
    Ok(ExitCode::SUCCESS)
}

/// Shows all that instances write, or have written since `began`, until all have ended.
pub fn follow(
    instances: &[Instance],
    began: Timestamp,
    shown: &Shown,
    terminal: bool,
) -> Result<()> {
    // Not their own starts' times, which are written down when they may have written already.
    let query = LogQuery { since: Some(began), follow: true, ..LogQuery::default() };
    show(instances, &query, shown, terminal)
}

fn show(instances: &[Instance], query: &LogQuery, shown: &Shown, terminal: bool) -> Result<()> {
    // The project's name is before all of them.
    let short = |it: &Instance| match service(it) {
        "" => it.name().to_owned(),
        service => format!("{service}-{}", isolab_compose::instances::number(it)),
    };
    let width = instances.iter().map(|it| short(it).len()).max().unwrap_or(0);
    let colours = terminal && !shown.no_color && std::env::var_os("NO_COLOR").is_none();
    // One line at a time.
    let out = Mutex::new(());
    let results: Vec<Result<(), InstanceError>> = thread::scope(|scope| {
        let threads: Vec<_> = instances
            .iter()
            .enumerate()
            .map(|(at, instance)| {
                let prefix = match shown.no_log_prefix {
                    true => String::new(),
                    false => prefix(&format!("{:<width$}  | ", short(instance)), at, colours),
                };
                let out = &out;
                scope.spawn(move || lines(instance, query, &prefix, shown.timestamps, out))
            })
            .collect();
        // One that panics has ended the process.
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    match results.into_iter().find_map(Result::err) {
        // It is gone, and its log with it.
        Some(InstanceError::NoSuchInstance(_)) | None => Ok(()),
        Some(error) => bail!(error),
    }
}

/// A colour for each, as Docker has them: cyan, yellow, green, magenta, blue, and bright ones.
fn prefix(text: &str, at: usize, colours: bool) -> String {
    const COLOURS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];
    match colours {
        true => format!("\x1b[{}m{text}\x1b[0m", COLOURS[at % COLOURS.len()]),
        false => text.to_owned(),
    }
}

fn lines(
    instance: &Instance,
    query: &LogQuery,
    prefix: &str,
    timestamps: bool,
    out: &Mutex<()>,
) -> Result<(), InstanceError> {
    // What has come of the line of each stream.
    let mut begun = [Vec::new(), Vec::new()];
    let mut take = |entry: &LogEntry| {
        let at = usize::from(entry.stream == Stream::Stderr);
        if begun[at].is_empty() {
            begun[at].extend_from_slice(prefix.as_bytes());
            if timestamps {
                begun[at].extend_from_slice(format!("{} ", entry.time).as_bytes());
            }
        }
        begun[at].extend_from_slice(&entry.text);
        if !entry.is_whole {
            return true;
        }
        begun[at].push(b'\n');
        let written = write(entry.stream, &begun[at], out);
        begun[at].clear();
        // Who reads no more has seen enough.
        written.is_ok()
    };
    read(&instance.entry.path, query, &mut take, || instance.has_ended())?;
    for (rest, stream) in begun.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
        if !rest.is_empty() {
            rest.push(b'\n');
            // As above.
            let _ = write(stream, rest, out);
        }
    }
    Ok(())
}

fn write(stream: Stream, line: &[u8], out: &Mutex<()>) -> io::Result<()> {
    let _one = out.lock();
    match stream {
        Stream::Stdout => io::stdout().write_all(line),
        Stream::Stderr => io::stderr().write_all(line),
    }
}
