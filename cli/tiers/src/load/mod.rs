//! `isolab tiers load`: bounded load on a mix of what the shop does.
//!
//! In an open loop requests are due at a fixed rate, whether or not the ones before them were answered, as visitors
//! come; a request's time is counted from when it was due, so that a server that stands still is not asked less, and
//! does not look better, for it (Tene, "How NOT to measure latency"; wrk2). In a closed loop each connection asks when
//! it was answered, which finds what a server can do at most.

mod mix;
mod report;
mod schedule;
mod tally;
mod work;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use isolab_command::format::Format;
use isolab_instances::time::parse_duration;

use self::mix::Mix;
use crate::site::{Site, Tier};

/// Put load on the shop, and tell how long answers took and what failed.
///
/// With --rate requests are due at that rate whatever becomes of them, and their time counts from then on. Without it
/// each connection asks again when it has been answered; with --requests so many in all, which are the same each time,
/// so that runs of them can be compared. Ctrl-C ends it early: what was answered by then is told.
#[derive(Args)]
#[command(after_help = "Examples:\n  isolab tiers load --rate 500 --duration 30s\n  \
    isolab tiers load --connections 64 --mix cached=1 --format json | jq .throughput\n  \
    isolab tiers load --requests 1000")]
pub struct Command {
    /// Requests a second that are due, over all connections.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How many connections there are at most.
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// How long.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How many in all, however long they take; instead of --duration.
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "duration"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// How long one request may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// What is asked for, and how often: static, compute, cached, read (an indexed search), scan (a search without an
    /// index) and write (an order).
    #[arg(long, value_name = "KIND=WEIGHT,...", default_value = Mix::DEFAULT)]
    mix: Mix,
    /// Another server than the web tier that runs.
    #[arg(long, value_name = "ADDRESS:PORT")]
    target: Option<SocketAddr>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command: its code is 1 if a request failed.
pub fn run(project: &str, args: &Command) -> Result<ExitCode> {
    let target = match args.target {
        Some(target) => target,
        None => Site::find(project)?.one(Tier::Web)?.address()?,
    };
    let tally = work::run(target, args)?;
    match args.format {
        Format::Table => print!("{}", report::table(&tally, args.rate)),
        Format::Json => {
            println!("{}", serde_json::to_string_pretty(&report::json(&tally, args.rate))?)
        }
    }
    Ok(if tally.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
