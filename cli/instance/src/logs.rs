//! `isolab logs`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use isolab_instances::Catalogue;
use isolab_instances::log::{LogEntry, LogQuery, Stream, read};
use isolab_instances::time::{NoTimestamp, Timestamp};

/// Print what an instance has written, each of its two streams to ours.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  isolab logs --tail 20 -f web\n  isolab logs --since 10m web")]
pub struct Args {
    /// Go on with what it writes, until it ends.
    #[arg(long, short)]
    follow: bool,
    /// Not what is older: 2026-11-28T09:30:00Z, seconds since 1970, or how long ago, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Not what is newer, likewise.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// The last lines only, so many of them; all, or -1, is all.
    #[arg(long, short = 'n', value_name = "LINES", value_parser = parse_tail, allow_hyphen_values = true)]
    tail: Option<Tail>,
    /// Each line's time before it.
    #[arg(long, short)]
    timestamps: bool,
    /// Its name, or its id or the beginning of it.
    instance: String,
}

/// How many lines of the end.
#[derive(Clone, Copy, Debug)]
struct Tail(Option<usize>);

fn parse_time(text: &str) -> Result<Timestamp, NoTimestamp> {
    Timestamp::parse_relative(text)
}

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail(None)),
        count => {
            count.parse().map(|count| Tail(Some(count))).map_err(|_| "expected a number".into())
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let instance = Catalogue::open_default()?.find(&args.instance)?;
    let query = LogQuery {
        since: args.since,
        until: args.until,
        tail: args.tail.and_then(|tail| tail.0),
        follow: args.follow,
    };
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    // Whether the line of each stream is at its beginning.
    let mut begins = [true, true];
    let mut write = |entry: &LogEntry| -> io::Result<()> {
        let (target, begins): (&mut dyn Write, &mut bool) = match entry.stream {
            Stream::Stdout => (&mut stdout, &mut begins[0]),
            Stream::Stderr => (&mut stderr, &mut begins[1]),
        };
        let mut line = Vec::with_capacity(entry.text.len() + 40);
        if args.timestamps && *begins {
            line.extend_from_slice(format!("{} ", entry.time).as_bytes());
        }
        line.extend_from_slice(&entry.text);
        if entry.is_whole {
            line.push(b'\n');
        }
        *begins = entry.is_whole;
        target.write_all(&line)?;
        if entry.is_whole { Ok(()) } else { target.flush() }
    };
    // Who reads no more has seen enough.
    read(&instance.entry.path, &query, |entry| write(entry).is_ok(), || instance.has_ended())?;
    Ok(ExitCode::SUCCESS)
}
