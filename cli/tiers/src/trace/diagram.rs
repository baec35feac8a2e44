//! The story for a terminal.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use isolab_command::format::bytes;

use super::cost::Counters;
use super::story::{Lane, Span, Story};

/// Columns of the time's axis.
const WIDTH: usize = 48;

/// Draws it.
pub fn draw(story: &Story) -> String {
    let mut text =
        format!("{} · {} · {} · id {}\n", story.request, story.status, ms(story.whole), story.id);
    let levels: Vec<_> =
        story.levels.iter().map(|(name, level)| format!("{name}: {level}")).collect();
    text += &format!("{}\n\n", levels.join(" · "));
    for span in &story.spans {
        text += &line(span, story.whole);
    }
    text += &format!("{:WIDTH$}└ {} ms\n", "", ms_number(story.whole));
    text += &clock(story);
    for statement in &story.statements {
        let words: Vec<_> = statement.text.split_whitespace().collect();
        text += &format!(
            "\ndb  {} {}\n    {}\n",
            ms(statement.time),
            words.join(" "),
            statement.plan.summary()
        );
    }
    text += &format!("\n{}\n", costs(&story.costs));
    text += "counted from just before the request to just after; others' work on the same instances is in it\n";
    text
}

fn line(span: &Span, whole: Duration) -> String {
    let column =
        |time: Duration| (time.as_secs_f64() / whole.as_secs_f64() * WIDTH as f64) as usize;
    let begin = column(span.begin).min(WIDTH - 1);
    let length = column(span.begin + span.time).min(WIDTH).saturating_sub(begin);
    // What is too short for a column is a point.
    let bar = if length == 0 { "▏".to_owned() } else { fill(span.lane).repeat(length) };
    let bar = format!("{}{bar}", " ".repeat(begin));
    let sizes = span.bytes.map_or(String::new(), |(there, back)| {
        format!("{} there, {} back; ", bytes(there), bytes(back))
    });
    format!(
        "{bar:WIDTH$}  {:<6} {:<23} {:>10}  {sizes}{}\n",
        span.lane,
        span.name,
        ms(span.time),
        span.note
    )
}

pub(super) fn fill(lane: Lane) -> &'static str {
    match lane {
        Lane::Client => "░",
        Lane::Web => "▒",
        Lane::App => "▓",
        Lane::Db => "█",
    }
}

fn clock(story: &Story) -> String {
    match story.clock {
        None => "web answered alone: all times are of the host's clock\n".to_owned(),
        Some(offset) => format!(
            "one clock: app's differs by {:+.3} ms, known to ±{:.3} ms\n",
            offset.nanoseconds as f64 / 1e6,
            offset.error as f64 / 1e6
        ),
    }
}

fn costs(costs: &[(String, Counters)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "INSTANCE",
        "READ/WRITE CALLS",
        "WAITS",
        "PREEMPTED",
        "CPU ms",
        "EXITS",
        "INTERRUPTS",
        "RECEIVED",
        "SENT",
    ]);
    for (name, cost) in costs {
        let number = |count: Option<u64>| count.map_or("--".to_owned(), |count| count.to_string());
        let size = |count: Option<u64>| count.map_or("--".to_owned(), bytes);
        table.add_row([
            name.clone(),
            number(cost.reads_and_writes),
            number(cost.waits),
            number(cost.preemptions),
            cost.cpu.map_or("--".to_owned(), |it| format!("{:.3}", it as f64 / 1e6)),
            number(cost.exits),
            number(cost.interrupts),
            size(cost.network_received),
            size(cost.network_sent),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn ms(time: Duration) -> String {
    format!("{} ms", ms_number(time))
}

pub(super) fn ms_number(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::story;
    use super::*;

    #[test]
    fn bars_are_where_the_time_was() {
        let text = draw(&story());
        let bar = |name: &str| {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            let bar: String = line.chars().take(WIDTH).collect();
            (bar.chars().take_while(|it| *it == ' ').count(), bar.trim().chars().count())
        };
        // 2 ms are 48 columns.
        assert_eq!(bar("name web"), (0, 4));
        assert_eq!(bar(" app "), (12, 24));
        assert_eq!(bar("SELECT"), (16, 10));
        assert!(text.contains("differs by -1.500 ms, known to ±0.040 ms"), "{text}");
    }
}
