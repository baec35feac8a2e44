//! `isolab stats`

use std::collections::HashMap;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use isolab_command::failure;
use isolab_command::format::bytes;
use isolab_instances::{Catalogue, Instance};
use isolab_isolation::Stats;
use serde_json::{Value, json};

use crate::format::{print_table, print_template};

/// Tell what instances use, seen from the host: again and again, or once. What only a guest can say, and might say
/// falsely, has a star in the table, and Guest in its name elsewhere.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab stats --no-stream --format json web")]
pub struct Args {
    /// Once only.
    #[arg(long)]
    no_stream: bool,
    /// Seconds from one table to the next.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 5)]
    interval: u64,
    /// json, table, or a template such as {{.Name}} {{.CPU}}.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Names, or ids or beginnings of them; by default all that run.
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// When an instance was last looked at, and what CPU time and exits it had had.
type Seen = HashMap<String, (Instant, Duration, u64)>;

/// Between the two looks that a share of a CPU takes, where there was none before.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let mut seen = Seen::new();
    look(&catalogue, args, &mut seen)?;
    thread::sleep(FIRST_LOOK);
    loop {
        let rows = look(&catalogue, args, &mut seen)?;
        if !args.no_stream && args.format == "table" {
            // Home, and nothing below.
            print!("\x1b[H\x1b[J");
        }
        print(&args.format, &rows)?;
        if args.no_stream {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(Duration::from_secs(args.interval.max(1)));
    }
}

fn look(catalogue: &Catalogue, args: &Args, seen: &mut Seen) -> Result<Vec<Value>> {
    let instances = match &args.instances[..] {
        [] => catalogue.all()?.into_iter().filter(|it| it.state.status.is_running()).collect(),
        names => names.iter().map(|name| catalogue.find(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut rows = Vec::new();
    for instance in instances {
        match catalogue.stats(&instance) {
            Ok(stats) => rows.push(row(&instance, &stats, seen)),
            Err(error) if !args.instances.is_empty() => return Err(error.into()),
            // One of all may have ended just now, or its level tells nothing.
            Err(error) if seen.contains_key(&instance.entry.id) => failure::tell(&error),
            Err(_) => {}
        }
    }
    Ok(rows)
}

fn row(instance: &Instance, stats: &Stats, seen: &mut Seen) -> Value {
    let (now, used) = (Instant::now(), stats.cpu_time.unwrap_or_default());
    let exits = stats.exits.unwrap_or_default();
    let before = seen.insert(instance.entry.id.clone(), (now, used, exits));
    let cpu = before.map(|(then, before, _)| {
        let share = used.saturating_sub(before).as_secs_f64() / (now - then).as_secs_f64();
        (share * 10_000.0).round() / 100.0
    });
    let exits_a_second = before.filter(|_| stats.exits.is_some()).map(|(then, _, before)| {
        (exits.saturating_sub(before) as f64 / (now - then).as_secs_f64()).round() as u64
    });
    json!({
        "ContainerID": instance.entry.id,
        "Name": instance.name(),
        "Isolation": instance.entry.level.name(),
        "CPU": cpu.filter(|_| stats.cpu_time.is_some()),
        "CPUNano": stats.cpu_time.map(|time| time.as_nanos() as u64),
        "MemUsage": stats.memory,
        "MemLimit": stats.memory_limit,
        "GuestMemory": stats.guest_memory,
        "NetInput": stats.network_received,
        "NetOutput": stats.network_sent,
        "BlockInput": stats.block_read,
        "BlockOutput": stats.block_written,
        "PIDs": stats.pids,
        "GuestPIDs": stats.guest_pids,
        "Exits": stats.exits,
        "ExitsPerSecond": exits_a_second,
        "ExitsByDevice": stats.exits_by_device,
    })
}

fn print(format: &str, rows: &[Value]) -> Result<()> {
    match format {
        "json" => println!("{}", serde_json::to_string_pretty(rows)?),
        "table" => {
            let heads = [
                "ID",
                "NAME",
                "ISOLATION",
                "CPU %",
                "MEM USAGE / LIMIT",
                "GUEST MEM",
                "NET IO",
                "BLOCK IO",
                "PIDS",
                "EXITS/S",
            ];
            let mut lines = vec![heads.map(str::to_owned).to_vec()];
            lines.extend(rows.iter().map(line));
            print_table(&lines);
        }
        template => print_template(template, rows)?,
    }
    Ok(())
}

fn line(row: &Value) -> Vec<String> {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| row[name].as_u64().map_or("--".to_owned(), |it| it.to_string());
    let size = |name: &str| row[name].as_u64().map_or("--".to_owned(), bytes);
    let told = |name: &str, text: String| match row[name].is_u64() {
        true => format!("{text}*"),
        false => text,
    };
    let pair = |one: &str, other: &str| format!("{} / {}", size(one), size(other));
    vec![
        text("ContainerID").chars().take(12).collect(),
        text("Name"),
        text("Isolation"),
        row["CPU"].as_f64().map_or("--".to_owned(), |share| format!("{share:.2}%")),
        pair("MemUsage", "MemLimit"),
        told("GuestMemory", size("GuestMemory")),
        pair("NetInput", "NetOutput"),
        pair("BlockInput", "BlockOutput"),
        match row["PIDs"].is_u64() {
            true => number("PIDs"),
            false => told("GuestPIDs", number("GuestPIDs")),
        },
        number("ExitsPerSecond"),
    ]
}
