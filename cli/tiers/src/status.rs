//! `isolab tiers status`: what of the shop runs, what it takes, and what it has done.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets};
use isolab_command::format::{Format, bytes};
use isolab_isolation::Level;
use serde_json::{Value, json};

use crate::http::{Ask, Connection, get_json};
use crate::site::{Member, PATIENCE, Site, Tier};

/// Tell what runs of the shop: where, at which level, what it takes of the host, what it was asked, and how often
/// caches had the answer.
#[derive(Args)]
#[command(
    after_help = "Example:\n  isolab tiers status --format json | jq '.[] | select(.tier == \"app\").cache'"
)]
pub struct Status {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub fn run(project: &str, args: &Status) -> Result<ExitCode> {
    let site = Site::find(project)?;
    let runtime = crate::runtime()?;
    let (mut rows, mut told) = (Vec::new(), None);
    for member in &site.members {
        rows.push(runtime.block_on(row(&site, member, &mut told)));
    }
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Format::Table => println!("{}", table(&rows)),
    }
    Ok(ExitCode::SUCCESS)
}

/// `told` is what an application server told, if one did.
async fn row(site: &Site, member: &Member, told: &mut Option<Value>) -> Value {
    let (instance, entry) = (&member.instance, &member.instance.entry);
    // One that does not run has none of these.
    let stats = site.catalogue.stats(instance).unwrap_or_default();
    let processes = site.catalogue.processes(instance).ok();
    // Where no cgroup counts: what processes share is counted in each of them.
    let resident = processes.as_ref().map(|them| them.iter().map(|it| it.resident).sum());
    let is_machine = matches!(entry.level, Level::Paravirt | Level::Fullvirt);
    let cpus = instance.config.as_ref().and_then(|config| config.request.limits.cpus);
    let address = member.address().ok();
    // What was healthy when it ended says nothing now.
    let is_running = instance.state.status.is_running();
    let health = instance.state.health.as_ref().filter(|_| is_running);
    let asked = match address.filter(|_| is_running) {
        Some(address) => asked(member, address, told).await,
        None => Asked::default(),
    };
    json!({
        "tier": member.tier.name(),
        "instance": instance.name(),
        "role": asked.role,
        "level": entry.level.name(),
        "state": instance.state.status.name(),
        "health": health.map(|health| health.status.name()),
        "address": address,
        "processes": processes.as_ref().map(Vec::len),
        "threads": stats.pids,
        "vcpus": is_machine.then(|| cpus.unwrap_or(1.0).ceil().max(1.0) as u64),
        "memory": stats.memory.or(resident),
        "cpu_nanoseconds": stats.cpu_time.map(|time| time.as_nanos() as u64),
        "requests": asked.requests,
        "cache": asked.hits.zip(asked.misses).map(|(hits, misses)| {
            json!({ "hits": hits, "misses": misses, "rate": rate(hits, misses) })
        }),
    })
}

/// What a tier tells of its own work; None where it does not.
#[derive(Debug, Default)]
struct Asked {
    /// Of a database: `primary`, the one that writes, or `standby`, one that follows.
    role: Option<&'static str>,
    /// Of nginx all HTTP requests, of the application server those below /api, of PostgreSQL transactions.
    requests: Option<u64>,
    /// Products that the cache had, or blocks that PostgreSQL's buffers had.
    hits: Option<u64>,
    /// Those it had not.
    misses: Option<u64>,
}

async fn asked(member: &Member, address: SocketAddr, told: &mut Option<Value>) -> Asked {
    match member.tier {
        Tier::Web => Asked { requests: web_requests(address).await, ..Asked::default() },
        Tier::App => {
            let stats = get_json(address, "/api/stats", PATIENCE).await.unwrap_or_default();
            let asked = Asked {
                requests: stats["requests"]["answered"].as_u64(),
                hits: stats["cache"]["hits"].as_u64(),
                misses: stats["cache"]["misses"].as_u64(),
                role: None,
            };
            if !stats.is_null() {
                told.get_or_insert(stats);
            }
            asked
        }
        Tier::Monitor => Asked::default(),
        // The application asked it for us, as it has the password, before (members are sorted by tier); the one that
        // follows it never asks.
        Tier::Db => {
            let Some(stats) = told.as_ref() else { return Asked::default() };
            let primary = stats["database"]["address"].as_str().and_then(|it| it.parse().ok());
            match primary.map(|it| member.has_address(it)) {
                Some(true) => {}
                Some(false) => return Asked { role: Some("standby"), ..Asked::default() },
                None => return Asked::default(),
            }
            Asked {
                role: Some("primary"),
                requests: stats["database"]["transactions"].as_u64(),
                hits: stats["database"]["buffer_hits"].as_u64(),
                misses: stats["database"]["buffer_reads"].as_u64(),
            }
        }
    }
}

async fn web_requests(address: SocketAddr) -> Option<u64> {
    let mut connection = Connection::open(address, PATIENCE).await.ok()?;
    let answer = connection.ask(&Ask::get("/nginx-status")).await.ok()?;
    stub_status_requests(std::str::from_utf8(&answer.body).ok()?)
}

/// The requests of nginx's stub_status: the third number of the line below the one that names them.
fn stub_status_requests(text: &str) -> Option<u64> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("server accepts"));
    lines.nth(1)?.split_whitespace().nth(2)?.parse().ok()
}

fn rate(hits: u64, misses: u64) -> Option<f64> {
    let all = hits + misses;
    (all > 0).then(|| (hits as f64 / all as f64 * 10_000.0).round() / 10_000.0)
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "TIER",
        "INSTANCE",
        "LEVEL",
        "STATE",
        "ADDRESS",
        "PROCESSES",
        "THREADS",
        "VCPUS",
        "MEMORY",
        "REQUESTS",
        "CACHE",
    ]);
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or("--").to_owned();
        let number = |name: &str| row[name].as_u64().map_or("--".to_owned(), |it| it.to_string());
        let state = match row["health"].as_str() {
            Some(health) => format!("{} ({health})", text("state")),
            None => text("state"),
        };
        let cache = row["cache"]["rate"].as_f64().map(|rate| format!("{:.2} %", rate * 100.0));
        let tier = match row["role"].as_str() {
            Some(role) => format!("{} ({role})", text("tier")),
            None => text("tier"),
        };
        table.add_row([
            tier,
            text("instance"),
            text("level"),
            state,
            text("address"),
            number("processes"),
            number("threads"),
            number("vcpus"),
            row["memory"].as_u64().map_or("--".to_owned(), bytes),
            number("requests"),
            cache.unwrap_or("--".to_owned()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_s_requests_are_its_third_number() {
        let text = "Active connections: 2 \nserver accepts handled requests\n 16 16 31 \nReading: 0 Writing: 1 Waiting: 1 \n";
        assert_eq!(stub_status_requests(text), Some(31));
        for bad in ["", "server accepts handled requests\n", "server accepts\n 1 2\n"] {
            assert_eq!(stub_status_requests(bad), None);
        }
    }

    #[test]
    fn a_rate_of_nothing_is_none() {
        assert_eq!(rate(0, 0), None);
        assert_eq!(rate(2, 1), Some(0.6667));
    }
}
