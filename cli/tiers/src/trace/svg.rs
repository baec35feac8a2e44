//! The story as an SVG: a lane for each tier, the time from left to right.

use std::fmt::Write;
use std::time::Duration;

use super::story::{Lane, Story};

const LEFT: f64 = 90.0;
const WIDTH: f64 = 1000.0;
const ROW: f64 = 22.0;
const TOP: f64 = 60.0;
const MARGIN: f64 = 14.0;

/// Draws it.
pub fn draw(story: &Story) -> String {
    let rows =
        Lane::ALL.map(|lane| story.spans.iter().filter(|span| span.lane == lane).count().max(1));
    let height = TOP + rows.iter().sum::<usize>() as f64 * ROW + MARGIN * 4.0 + 60.0;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{}</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#555\">{}</text>\n",
        LEFT + WIDTH + 20.0,
        escape(&format!("{} · {} · {}", story.request, story.status, ms(story.whole))),
        escape(&levels(story)),
    );
    let mut y = TOP;
    for (lane, rows) in Lane::ALL.into_iter().zip(rows) {
        let height = rows as f64 * ROW + MARGIN / 2.0;
        let _ = write!(
            svg,
            "<rect x=\"0\" y=\"{y}\" width=\"100%\" height=\"{height}\" fill=\"{}\"/>\n\
             <text x=\"12\" y=\"{}\" font-weight=\"bold\">{lane}</text>\n",
            background(lane),
            y + 16.0,
        );
        draw_lane(&mut svg, story, lane, y);
        y += height + MARGIN / 2.0;
    }
    draw_axis(&mut svg, story, y);
    svg += "</svg>\n";
    svg
}

fn draw_lane(svg: &mut String, story: &Story, lane: Lane, top: f64) {
    for (row, span) in story.spans.iter().filter(|span| span.lane == lane).enumerate() {
        let y = top + 3.0 + row as f64 * ROW;
        let (x, width) = (x(story, span.begin), (x(story, span.time) - LEFT).max(1.5));
        // Beside its bar, on the side where there is more room.
        let (at, anchor) = match x + width > LEFT + WIDTH / 2.0 {
            true => (x - 5.0, "end"),
            false => (x + width + 5.0, "start"),
        };
        let what = format!("{} {}", span.name.trim(), ms(span.time));
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" fill=\"{}\">\
             <title>{}</title></rect>\n\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>\n",
            colour(lane),
            escape(&format!("{what}; {}", span.note)),
            y + 13.0,
            escape(&what),
        );
    }
}

fn draw_axis(svg: &mut String, story: &Story, y: f64) {
    for tenth in 0..=10_u32 {
        let time = story.whole * tenth / 10;
        let x = x(story, time);
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{y}\" stroke=\"#000\" stroke-opacity=\"0.1\"/>\n\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>\n",
            y + 14.0,
            escape(&ms(time)),
        );
    }
    let clock = story.clock.map_or(String::new(), |offset| {
        format!("the application's clock is known to ±{:.3} ms; ", offset.error as f64 / 1e6)
    });
    let note = format!(
        "{clock}where in the wait for it the database ran is not told: it is drawn in the middle"
    );
    let _ =
        writeln!(svg, "<text x=\"12\" y=\"{}\" fill=\"#555\">{}</text>", y + 36.0, escape(&note));
}

fn levels(story: &Story) -> String {
    let levels = story.levels.iter().map(|(name, level)| format!("{name}: {level}"));
    levels.collect::<Vec<_>>().join(" · ")
}

fn x(story: &Story, time: Duration) -> f64 {
    LEFT + time.as_secs_f64() / story.whole.as_secs_f64().max(f64::MIN_POSITIVE) * WIDTH
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

fn colour(lane: Lane) -> &'static str {
    match lane {
        Lane::Client => "#7a8b99",
        Lane::Web => "#3f88c5",
        Lane::App => "#e09f3e",
        Lane::Db => "#4f772d",
    }
}

fn background(lane: Lane) -> &'static str {
    match lane {
        Lane::Client => "#f2f4f6",
        Lane::Web => "#eaf3fa",
        Lane::App => "#fdf5e8",
        Lane::Db => "#eef4ea",
    }
}

/// As text of an element or attribute (XML 1.0, 2.4); what XML has no place for becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '"' => escaped += "&quot;",
            '\t' | '\n' => escaped.push(' '),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::story;
    use super::*;

    #[test]
    fn each_span_is_a_bar_where_its_time_was() {
        let svg = draw(&story());
        assert_eq!(svg.matches("<title>").count(), 4);
        // 2 ms are 1000 wide: app from 0.5 ms on, for 1 ms.
        assert!(svg.contains("<rect x=\"340.0\""), "{svg}");
        assert!(svg.contains("width=\"500.0\""), "{svg}");
    }

    #[test]
    fn what_others_wrote_is_text() {
        let svg = draw(&story());
        assert!(svg.contains("q=&lt;oak&gt;&amp;page=1") && svg.contains("a &lt; b"), "{svg}");
        assert_eq!(escape("a\u{1b}\"\n"), "a\u{fffd}&quot; ");
    }
}
