//! What is told of a run.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::tally::{Counts, Tally};

/// The percentiles, and what they are called.
const PERCENTILES: [(f64, &str); 5] =
    [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9"), (100.0, "max")];

/// For people.
pub fn table(tally: &Tally, rate: Option<u32>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let heads = ["KIND", "ANSWERED", "FAILED"].into_iter();
    let times = PERCENTILES.into_iter().map(|(_, name)| name);
    table.set_header(heads.chain(times).map(str::to_uppercase));
    for (kind, counts) in &tally.kinds {
        table.add_row(row(kind.name(), counts));
    }
    let whole = tally.whole();
    table.add_row(row("all", &whole));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n");
    let seconds = tally.took.as_secs_f64();
    let asked = rate.map_or("closed loop".to_owned(), |rate| format!("{rate} asked for"));
    text += &format!(
        "{:.1} answers/s in {seconds:.1} s ({asked}), {:.1} kB/s; times in milliseconds",
        throughput(tally, &whole),
        whole.bytes as f64 / 1e3 / seconds,
    );
    text += if rate.is_some() { ", from when a request was due\n" } else { "\n" };
    if whole.asked_again > 0 {
        text += &format!(
            "asked again, as the connection was just being closed: {}\n",
            whole.asked_again
        );
    }
    for (failure, count) in &whole.failures {
        text += &format!("failed: {count} {}\n", failure.name());
    }
    text
}

fn row(name: &str, counts: &Counts) -> Vec<String> {
    let mut row =
        vec![name.to_owned(), counts.times.len().to_string(), counts.errors().to_string()];
    let time = |(percentile, _)| match counts.times.is_empty() {
        true => "--".to_owned(),
        false => format!("{:.2}", counts.times.value_at_percentile(percentile) as f64 / 1e6),
    };
    row.extend(PERCENTILES.into_iter().map(time));
    row
}

fn throughput(tally: &Tally, whole: &Counts) -> f64 {
    whole.times.len() as f64 / tally.took.as_secs_f64()
}

/// For programs.
pub fn json(tally: &Tally, rate: Option<u32>) -> Value {
    let kinds: Map<_, _> = tally
        .kinds
        .iter()
        .map(|(kind, counts)| (kind.name().to_owned(), counts_json(counts)))
        .collect();
    let whole = tally.whole();
    json!({
        "rate": rate,
        "seconds": tally.took.as_secs_f64(),
        "throughput": throughput(tally, &whole),
        "all": counts_json(&whole),
        "kinds": kinds,
    })
}

fn counts_json(counts: &Counts) -> Value {
    let times: Map<_, _> = PERCENTILES
        .into_iter()
        .filter(|_| !counts.times.is_empty())
        .map(|(percentile, name)| {
            (name.to_owned(), counts.times.value_at_percentile(percentile).into())
        })
        .collect();
    let failures: Map<_, _> =
        counts.failures.iter().map(|(failure, count)| (failure.name(), (*count).into())).collect();
    json!({
        "answered": counts.times.len(),
        "failed": counts.errors(),
        "failures": failures,
        "bytes": counts.bytes,
        "asked_again": counts.asked_again,
        "nanoseconds": times,
    })
}
