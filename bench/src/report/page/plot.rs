//! Plots, as SVG that takes its colours from the page's style. Each has a title that says in words what it shows, and
//! each mark one with its numbers.

use maud::{Markup, html};

use super::super::Report;
use super::super::table::significant;
use crate::metrics::{EXITS, PHASES, RATE, THROUGHPUT, TO_FIRST_OUTPUT};

pub(super) const WIDTH: f64 = 860.0;
/// Where marks begin, to the right of their names.
pub(super) const LEFT: f64 = 210.0;
/// Where they end, to the left of their figures.
pub(super) const RIGHT: f64 = 760.0;
const ROW: f64 = 22.0;
/// Of the style; a ninth begins anew.
pub(super) const COLOURS: usize = 8;
/// Curves of more metrics than these would be a wall; the table has all.
const MOST_CURVES: usize = 6;

/// A place or length of the plots: a tenth is finer than a screen's.
pub(super) fn tenths(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

/// Where the time to the first output goes: a bar a subject, of its phases one behind the other.
pub fn phases(report: &Report, benchmark: &str) -> Markup {
    let subjects: Vec<(&str, Vec<f64>)> = report
        .subjects(benchmark)
        .into_iter()
        .filter_map(|subject| {
            let of = |metric: &str| {
                let found =
                    report.of(benchmark).find(|it| it.subject == subject && it.metric == metric);
                found.map(|it| it.summary.median)
            };
            of(TO_FIRST_OUTPUT)?;
            let parts: Vec<f64> = PHASES.iter().map(|phase| of(phase).unwrap_or(0.0)).collect();
            (parts.iter().sum::<f64>() > 0.0).then_some((subject, parts))
        })
        .collect();
    let longest = subjects.iter().map(|(_, parts)| parts.iter().sum()).fold(0.0, f64::max);
    if longest <= 0.0 {
        return html! {};
    }
    let scale = (RIGHT - LEFT) / longest;
    let height = ROW * (subjects.len() as f64 + 1.0);
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
                aria-label="Bars: the phases of a start to the first line of output, medians in ms" {
                @for (colour, phase) in PHASES.iter().enumerate() {
                    @let x = LEFT + 130.0 * colour as f64;
                    rect class={ "f" (colour) } x=(x) y="4" width="12" height="12" {}
                    text x=(x + 18.0) y="15" { (phase) }
                }
                @for (row, (subject, parts)) in subjects.iter().enumerate() {
                    @let y = ROW * (row as f64 + 1.0);
                    text x=(LEFT - 8.0) y=(y + 15.0) text-anchor="end" { (subject) }
                    @for (colour, part) in parts.iter().enumerate() {
                        @let before: f64 = parts[..colour].iter().sum();
                        rect class={ "f" (colour) } x=(tenths(LEFT + before * scale)) y=(y + 3.0)
                            width=(tenths(part * scale)) height=(ROW - 6.0) {
                            title { (subject) ", " (PHASES[colour]) ": " (significant(*part)) " ms" }
                        }
                    }
                    @let sum: f64 = parts.iter().sum();
                    text x=(tenths(LEFT + sum * scale + 6.0)) y=(y + 15.0) { (significant(sum)) " ms" }
                }
            }
            figcaption { "Where the time to the first line of output goes: medians." }
        }
    }
}

/// What a reader looks for first: of jobs what they got done, beside which costs stand in the table.
fn is_shown(report: &Report, benchmark: &str, metric: &str) -> bool {
    let has_jobs = report.metrics(benchmark).iter().any(|it| it.ends_with(THROUGHPUT));
    !has_jobs || (metric.ends_with(THROUGHPUT) && !metric.starts_with(RATE))
}

/// How often a piece of each job's work left a guest: a bar for each job and machine.
pub fn exits(report: &Report, benchmark: &str) -> Markup {
    let metrics: Vec<&str> =
        report.metrics(benchmark).into_iter().filter(|metric| metric.ends_with(EXITS)).collect();
    let bars: Vec<_> = metrics
        .iter()
        .flat_map(|metric| report.of(benchmark).filter(move |it| it.metric == **metric))
        .filter(|it| it.summary.median.is_finite())
        .collect();
    let most = bars.iter().map(|it| it.summary.median).fold(0.0, f64::max);
    if most <= 0.0 {
        return html! {};
    }
    let subjects = report.subjects(benchmark);
    let colour = |name: &str| subjects.iter().position(|it| *it == name).unwrap_or(0) % COLOURS;
    let width = |value: f64| value / most * (RIGHT - LEFT);
    let height = ROW * bars.len() as f64 + 8.0;
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
                aria-label={ "Bars: exits for each piece of work of " (benchmark) } {
                @for (row, it) in bars.iter().enumerate() {
                    @let y = ROW * row as f64 + 4.0;
                    @let job = it.metric.trim_end_matches(EXITS);
                    text x=(LEFT - 8.0) y=(y + 15.0) text-anchor="end" { (job) " " (it.subject) }
                    rect class={ "f" (colour(&it.subject)) } x=(LEFT) y=(y + 3.0) width=(tenths(width(it.summary.median)))
                        height=(ROW - 8.0) {
                        title { (job) ", " (it.subject) ": " (significant(it.summary.median)) " exits " (it.unit) }
                    }
                    text x=(tenths(LEFT + width(it.summary.median) + 6.0)) y=(y + 15.0) {
                        (significant(it.summary.median)) " " (it.unit)
                    }
                }
            }
            figcaption { "How often a piece of work leaves the guest: medians of KVM's count." }
        }
    }
}

/// Ratios that passed the audit, with their intervals, on a logarithmic scale: half is as far from one as twice.
pub fn ratios(report: &Report, benchmark: &str) -> Markup {
    let metrics = report.metrics(benchmark);
    let mut bars: Vec<_> = report
        .comparisons
        .iter()
        .filter(|it| it.benchmark == benchmark && is_shown(report, benchmark, &it.metric))
        .filter_map(|it| Some((it, it.ratio?, it.ratio_interval?)))
        .filter(|(_, ratio, interval)| *ratio > 0.0 && interval.low > 0.0)
        .collect();
    bars.sort_by_key(|(it, ..)| metrics.iter().position(|metric| *metric == it.metric));
    if bars.is_empty() {
        return html! {};
    }
    let subjects = report.subjects(benchmark);
    let colour = |name: &str| subjects.iter().position(|it| *it == name).unwrap_or(0) % COLOURS;
    let ends =
        bars.iter().flat_map(|(_, ratio, interval)| [*ratio, interval.low, interval.high, 1.0]);
    let (low, high) =
        ends.fold((f64::MAX, f64::MIN), |(low, high), it| (low.min(it), high.max(it)));
    let span = (high / low).ln().max(0.1);
    let x = |ratio: f64| LEFT + (ratio / low).ln() / span * (RIGHT - LEFT);
    let height = ROW * bars.len() as f64 + 8.0;
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
                aria-label={ "Bars: ratios of medians of " (benchmark) ", with 95 % intervals, logarithmic" } {
                line.axis x1=(tenths(x(1.0))) x2=(tenths(x(1.0))) y1="0" y2=(height) {}
                @for (row, (it, ratio, interval)) in bars.iter().enumerate() {
                    @let y = ROW * row as f64 + 4.0;
                    @let (from, to) = (x(ratio.min(1.0)), x(ratio.max(1.0)));
                    text x=(LEFT - 8.0) y=(y + 15.0) text-anchor="end" { (it.metric) " " (it.subject) }
                    rect class={ "f" (colour(&it.subject)) } x=(tenths(from)) y=(y + 3.0) width=(tenths(to - from))
                        height=(ROW - 8.0) {
                        title {
                            (it.metric) ", " (it.subject) ": " (significant(*ratio)) " times " (it.baseline) "'s, "
                            (significant(interval.low)) " to " (significant(interval.high))
                        }
                    }
                    line.whisker x1=(tenths(x(interval.low))) x2=(tenths(x(interval.high))) y1=(y + 10.0) y2=(y + 10.0) {}
                    text x=(tenths(x(interval.high.max(1.0)) + 6.0)) y=(y + 15.0) { (significant(*ratio)) "x" }
                }
            }
            figcaption { "Ratios to the baseline that passed the audit, with 95 % intervals; logarithmic." }
        }
    }
}

/// The empirical distribution of each metric: the part of samples up to a value, a curve a subject.
pub fn distributions(report: &Report, benchmark: &str) -> Markup {
    let metrics = report.metrics(benchmark).into_iter();
    let metrics: Vec<&str> =
        metrics.filter(|metric| is_shown(report, benchmark, metric)).take(MOST_CURVES).collect();
    html! { @for metric in metrics { (distribution(report, benchmark, metric)) } }
}

fn distribution(report: &Report, benchmark: &str, metric: &str) -> Markup {
    const HEIGHT: f64 = 180.0;
    let all: Vec<_> = report.of(benchmark).filter(|it| it.metric == metric).collect();
    let largest = all.iter().map(|it| it.summary.max).fold(0.0, f64::max);
    // Of one sample there is no distribution.
    if largest <= 0.0 || all.iter().any(|it| it.summary.samples.len() < 2) {
        return html! {};
    }
    let x = |value: f64| LEFT + value / largest * (RIGHT - LEFT);
    let y = |part: f64| HEIGHT - 30.0 - part * (HEIGHT - 40.0);
    let curve = |samples: &[f64]| -> String {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let step = 1.0 / sorted.len() as f64;
        let steps = sorted
            .iter()
            .enumerate()
            .map(|(rank, value)| format!("H{:.1}V{:.1}", x(*value), y((rank + 1) as f64 * step)));
        format!("M{:.1} {:.1}", x(sorted[0]), y(0.0)) + &steps.collect::<String>()
    };
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
                aria-label={ "Curves: the part of samples of " (metric) " up to a value, for each subject" } {
                line.axis x1=(LEFT) x2=(RIGHT) y1=(y(0.0)) y2=(y(0.0)) {}
                line.axis x1=(LEFT) x2=(RIGHT) y1=(y(0.5)) y2=(y(0.5)) {}
                line.axis x1=(LEFT) x2=(RIGHT) y1=(y(1.0)) y2=(y(1.0)) {}
                text.faint x=(LEFT) y=(HEIGHT - 10.0) { "0" }
                text.faint x=(RIGHT) y=(HEIGHT - 10.0) text-anchor="end" {
                    (significant(largest)) " " (all.first().map_or("", |it| &it.unit))
                }
                @for (place, it) in all.iter().enumerate() {
                    @let colour = place % COLOURS;
                    path class={ "s" (colour) } d=(curve(&it.summary.samples)) {
                        title { (it.subject) ": median " (significant(it.summary.median)) " " (it.unit) }
                    }
                    rect class={ "f" (colour) } x="4" y=(14.0 + 18.0 * place as f64) width="12" height="12" {}
                    text x="22" y=(25.0 + 18.0 * place as f64) { (it.subject) }
                }
            }
            figcaption { code { (metric) } ": the part of samples up to a value; the lines are none, half and all." }
        }
    }
}
