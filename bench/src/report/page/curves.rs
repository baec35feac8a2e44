//! Curves over an axis: what reading gets done by the size of a request, the start of one more of many, the time of an
//! answer by how much is asked.

use maud::{Markup, html};

use super::super::Report;
use super::super::table::significant;
use super::plot::{COLOURS, LEFT, RIGHT, WIDTH, tenths};
use crate::metrics::{PERCENTILES, RATE, READS, STARTS, THROUGHPUT};

const HEIGHT: f64 = 240.0;
/// Where the horizontal axis is, and the top of the other one.
const BOTTOM: f64 = HEIGHT - 40.0;
const TOP: f64 = 14.0;

/// A metric with its place on the horizontal axis.
struct Place {
    at: f64,
    name: String,
    metric: String,
}

/// A subject's medians, each with its place.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// All of a benchmark that there are.
pub fn all(report: &Report, benchmark: &str) -> Markup {
    html! {
        @for place in ["root", "volume"] {
            (plot(report, benchmark, &format!("reading the {place} by the size of a request"), "bytes", &reads(place)))
        }
        (plot(report, benchmark, "the start of one more instance", "instances", &starts()))
        @for percentile in PERCENTILES {
            (plot(report, benchmark, &format!("the time of an answer by how much is asked ({})", &percentile[1..]),
                "requests a second", &rates(report, benchmark, percentile)))
        }
    }
}

fn reads(place: &str) -> Vec<Place> {
    let place = |(bytes, name): (u32, &str)| Place {
        at: f64::from(bytes),
        name: name.trim_start_matches("randread_").to_owned(),
        metric: format!("{place}_{name}{THROUGHPUT}"),
    };
    READS.into_iter().map(place).collect()
}

fn starts() -> Vec<Place> {
    let place = |(number, metric): (u32, &str)| Place {
        at: f64::from(number),
        name: number.to_string(),
        metric: metric.to_owned(),
    };
    STARTS.into_iter().map(place).collect()
}

fn rates(report: &Report, benchmark: &str, percentile: &str) -> Vec<Place> {
    let place = |metric: &str| {
        let rate = metric.strip_prefix(RATE)?.strip_suffix(percentile)?;
        Some(Place { at: rate.parse().ok()?, name: rate.to_owned(), metric: metric.to_owned() })
    };
    report.metrics(benchmark).into_iter().filter_map(place).collect()
}

/// A curve for each subject, logarithmic from left to right and linear upwards from nothing. None where there is none of two
/// points.
fn plot(report: &Report, benchmark: &str, title: &str, across: &str, places: &[Place]) -> Markup {
    let found = |subject: &str, metric: &str| {
        report.of(benchmark).find(|it| it.subject == subject && it.metric == metric)
    };
    let curve = |subject: &str| {
        let median =
            |place: &Place| Some((place.at, found(subject, &place.metric)?.summary.median));
        let points: Vec<(f64, f64)> = places.iter().filter_map(median).collect();
        (points.len() > 1).then(|| Curve { name: subject.to_owned(), points })
    };
    let curves: Vec<Curve> = report.subjects(benchmark).into_iter().filter_map(curve).collect();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let highest = points().map(|(_, value)| *value).fold(0.0, f64::max);
    let first = points().map(|(at, _)| *at).fold(f64::MAX, f64::min);
    let last = points().map(|(at, _)| *at).fold(0.0, f64::max);
    if highest <= 0.0 || first <= 0.0 || last <= first {
        return html! {};
    }
    let x = |at: f64| LEFT + (at / first).ln() / (last / first).ln() * (RIGHT - LEFT);
    let y = |value: f64| BOTTOM - value / highest * (BOTTOM - TOP);
    let line = |curve: &Curve| -> String {
        let step = |(place, (at, value)): (usize, &(f64, f64))| {
            format!("{}{:.1} {:.1}", if place == 0 { "M" } else { "L" }, x(*at), y(*value))
        };
        curve.points.iter().enumerate().map(step).collect()
    };
    let unit = report
        .of(benchmark)
        .find(|it| places.iter().any(|place| place.metric == it.metric))
        .map_or("", |it| it.unit.as_str());
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ "Curves: " (title) } {
                line.axis x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
                line.axis x1=(LEFT) x2=(LEFT) y1=(TOP) y2=(BOTTOM) {}
                text.faint x=(LEFT - 6.0) y=(TOP + 8.0) text-anchor="end" { (significant(highest)) " " (unit) }
                text.faint x=(LEFT - 6.0) y=(BOTTOM) text-anchor="end" { "0" }
                @for place in places.iter().filter(|it| (first..=last).contains(&it.at)) {
                    text.faint x=(tenths(x(place.at))) y=(BOTTOM + 16.0) text-anchor="middle" { (place.name) }
                }
                text.faint x=(RIGHT) y=(BOTTOM + 34.0) text-anchor="end" { (across) }
                @for (place, curve) in curves.iter().enumerate() {
                    @let colour = place % COLOURS;
                    path class={ "s" (colour) } d=(line(curve)) { title { (curve.name) } }
                    @for (at, value) in &curve.points {
                        circle class={ "f" (colour) } cx=(tenths(x(*at))) cy=(tenths(y(*value))) r="3" {
                            title { (curve.name) " at " (at) " " (across) ": " (significant(*value)) " " (unit) }
                        }
                    }
                    rect class={ "f" (colour) } x="4" y=(TOP + 26.0 + 18.0 * place as f64) width="12" height="12" {}
                    text x="22" y=(TOP + 37.0 + 18.0 * place as f64) { (curve.name) }
                }
            }
            figcaption { "Medians: " (title) "." }
        }
    }
}
