//! A report as one self-contained page: no script, nothing from elsewhere, plots as SVG. It follows the reader's light or
//! dark, prints, and all that opens does so by keyboard. Each figure is a `<data>` with the very number of the JSON.

mod curves;
mod plot;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::headline::{self, headlines};
use super::table::{marks, medians_and_ratios, ratio, significant};
use super::{Comparison, Measurement, Report};

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(report: &Report) -> String {
    let benchmarks = report.benchmarks();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // A page without one would ask its server for it.
                link rel="icon" href="data:,";
                title { "isolab: what isolation costs" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "What isolation costs" }
                    (head(report))
                    nav aria-label="Benchmarks" {
                        @for name in &benchmarks { a href={ "#" (name) } { (name) } " " }
                        a href="#remarks" { "remarks" }
                    }
                }
                main {
                    (short(report))
                    @for name in &benchmarks { (benchmark(report, name)) }
                    (remarks(report))
                }
            }
        }
    }
    .into_string()
}

fn head(report: &Report) -> Markup {
    let host = &report.host;
    let mitigations: Vec<String> =
        host.mitigations.iter().map(|(name, state)| format!("{name}: {state}")).collect();
    html! {
        dl {
            dt { "Begun" } dd { (report.origin.begun) }
            dt { "Command" } dd { code { (report.origin.command.join(" ")) } }
            dt { "isolab" } dd { (report.origin.version) }
            dt { "Processor" } dd { (host.cpu) ", " (host.cpus) " online" }
            dt { "Kernel" } dd { "Linux " (host.kernel) }
            dt { "KVM" } dd { (host.kvm.describe()) }
            @if let Some(kernel) = &host.guest_kernel { dt { "Guest kernel" } dd { (kernel) } }
            @if let (Some(image), Some(digest)) = (&host.image, &host.image_digest) {
                dt { "Image" } dd { (image) " " code { (digest) } }
            }
            dt { "Mitigations" }
            dd { details { summary { (mitigations.len()) } ul { @for line in mitigations { li { (line) } } } } }
        }
    }
}

/// What a reader asks for first, each with a way to the rest of it; nothing for a report of one benchmark.
fn short(report: &Report) -> Markup {
    let (headlines, subjects) = (headlines(report), headline::subjects(report));
    if headlines.is_empty() {
        return html! {};
    }
    html! {
        section #in-short {
            h2 { "In short" }
            div.wide tabindex="0" role="region" aria-label="In short" {
                table.short {
                    thead { tr {
                        th scope="col" { "medians, and ratios to the first" } th scope="col" { "unit" }
                        @for subject in &subjects { th scope="col" { (subject) } }
                    } }
                    tbody { @for it in &headlines { tr {
                        th scope="row" { a href={ "#" (it.benchmark) } { (it.what) } }
                        td { (it.unit) }
                        @for cell in medians_and_ratios(report, it.benchmark, it.metric, &subjects) { td { (cell) } }
                    } } }
                }
            }
        }
    }
}

fn benchmark(report: &Report, name: &str) -> Markup {
    html! {
        section id=(name) {
            h2 { (name) }
            (plot::phases(report, name))
            (plot::ratios(report, name))
            (curves::all(report, name))
            (plot::exits(report, name))
            (plot::distributions(report, name))
            (figures(report, name))
        }
    }
}

/// All figures of a benchmark: a row for each metric and subject.
fn figures(report: &Report, benchmark: &str) -> Markup {
    let rows = report.metrics(benchmark).into_iter().flat_map(|metric| {
        report.of(benchmark).filter(move |measurement| measurement.metric == metric)
    });
    html! {
        details open {
            summary { "Figures" }
            div.wide tabindex="0" role="region" aria-label={ "Figures of " (benchmark) } {
                table.figures {
                    thead { tr {
                        @for name in ["metric", "subject", "unit", "median", "95 % interval", "min", "p95", "p99",
                            "max", "samples", "ratio", "remarks"] { th scope="col" { (name) } }
                    } }
                    tbody { @for it in rows { (row(it, report.comparison(benchmark, &it.subject, &it.metric))) } }
                }
            }
        }
    }
}

fn row(it: &Measurement, compared: Option<&Comparison>) -> Markup {
    let summary = &it.summary;
    let id = |what: &str| format!("{}/{}/{}/{what}", it.benchmark, it.subject, it.metric);
    let faults = compared.map_or(&[][..], |compared| &compared.faults);
    html! {
        tr {
            th scope="row" { (it.metric) }
            td { (it.subject) }
            td { (it.unit) }
            td { (number(&id("median"), summary.median)) }
            td { (number(&id("low"), summary.interval.low)) " to " (number(&id("high"), summary.interval.high)) }
            td { (number(&id("min"), summary.min)) }
            td { (number(&id("p95"), summary.p95)) }
            td { (number(&id("p99"), summary.p99)) }
            td { (number(&id("max"), summary.max)) }
            td { (summary.samples.len()) }
            td {
                @if let Some(compared) = compared {
                    @match compared.ratio {
                        Some(value) => { data id=(id("ratio")) value=(value) { (ratio(compared)) } },
                        None => { (ratio(compared)) },
                    }
                }
            }
            td {
                @if !faults.is_empty() {
                    details {
                        summary { (compared.map_or(String::new(), in_short)) }
                        ul { @for fault in faults { li { (fault.kind.name()) ": " (fault.text) } } }
                    }
                }
            }
        }
    }
}

fn in_short(compared: &Comparison) -> String {
    let marks: Vec<_> = marks(compared).into_iter().map(|kind| kind.name()).collect();
    if compared.ratio.is_none() { "why no ratio".to_owned() } else { marks.join(", ") }
}

/// A number as a reader wants it and as a program does.
fn number(id: &str, value: f64) -> Markup {
    html! { data id=(id) value=(value) { (significant(value)) } }
}

fn remarks(report: &Report) -> Markup {
    html! {
        section id="remarks" {
            h2 { "Remarks" }
            ul { @for remark in report.remarks() { li { (remark) } } }
            p {
                "Ratios are of medians. A tilde marks one that chance may have made: the permutation test's p is above "
                "0.05. Intervals are of the median, by bootstrap, at 95 %."
            }
        }
    }
}

#[cfg(test)]
mod tests;
