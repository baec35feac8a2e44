//! A report on a terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::{Comparison, FaultKind, Report};
use crate::statistics::Summary;

/// A table without rows; all columns but the first are numbers.
pub fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// One row a subject of `benchmark` for `metric`, with the ratio of its median to its baseline's.
pub fn of_metric(report: &Report, benchmark: &str, metric: &str) -> String {
    let mut table = plain_table(&["subject", "min", "median", "p95", "max", "ratio"]);
    for measurement in report.of(benchmark).filter(|m| m.metric == metric) {
        let Summary { min, median, p95, max, .. } = measurement.summary;
        let figures = [min, median, p95, max].map(|figure| format!("{figure:.1}"));
        let subject = &measurement.subject;
        let compared = report.comparison(benchmark, subject, metric);
        let row = [subject.clone()]
            .into_iter()
            .chain(figures)
            .chain([compared.map_or_else(|| "1".to_owned(), ratio)]);
        table.add_row(row);
    }
    table.to_string()
}

/// The medians of `metrics`, one row a subject of `benchmark`; a metric that a subject lacks is a dash.
pub fn medians(report: &Report, benchmark: &str, metrics: &[&str]) -> String {
    let mut table = plain_table(&[&["subject"], metrics].concat());
    for subject in report.subjects(benchmark) {
        let cell = |metric: &&str| match report.summary(subject, metric) {
            Some(summary) => format!("{:.1}", summary.median),
            None => "-".to_owned(),
        };
        table.add_row([subject.to_owned()].into_iter().chain(metrics.iter().map(cell)));
    }
    table.to_string()
}

/// One row a metric of `benchmark`, one column a subject: the median, and the ratio to the baseline's.
pub fn by_metric(report: &Report, benchmark: &str) -> String {
    let subjects = report.subjects(benchmark);
    let header: Vec<&str> =
        ["metric", "unit"].into_iter().chain(subjects.iter().copied()).collect();
    let mut table = plain_table(&header);
    for metric in report.metrics(benchmark) {
        let unit = report.of(benchmark).find(|it| it.metric == metric).map_or("", |it| &it.unit);
        let cells = medians_and_ratios(report, benchmark, metric, &subjects);
        table.add_row([metric.to_owned(), unit.to_owned()].into_iter().chain(cells));
    }
    table.to_string()
}

/// A cell for each of `subjects`: the median, and the ratio to the baseline's; a dash for one that lacks the metric.
pub(super) fn medians_and_ratios(
    report: &Report,
    benchmark: &str,
    metric: &str,
    subjects: &[&str],
) -> Vec<String> {
    let cell = |subject: &&str| {
        let measured =
            report.of(benchmark).find(|it| it.subject == *subject && it.metric == metric);
        let Some(measured) = measured else { return "-".to_owned() };
        let median = significant(measured.summary.median);
        match report.comparison(benchmark, subject, metric) {
            Some(compared) => format!("{median} ({})", ratio(compared)),
            None => median,
        }
    };
    subjects.iter().map(cell).collect()
}

/// The ratio, or why there is none. A tilde marks one that chance may have made.
pub fn ratio(comparison: &Comparison) -> String {
    let Some(ratio) = comparison.ratio else {
        let why = comparison.faults.iter().find(|fault| fault.kind.forbids_ratio());
        return why.map_or("-", |fault| fault.kind.name()).to_owned();
    };
    let sign = if comparison.verdict == super::Verdict::NoDifference { "~" } else { "" };
    format!("{sign}{ratio:.2}x")
}

/// At least three digits, where there are as many.
pub(super) fn significant(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The marks that a comparison has without losing its ratio.
pub(super) fn marks(comparison: &Comparison) -> Vec<FaultKind> {
    comparison.faults.iter().map(|fault| fault.kind).filter(|kind| !kind.forbids_ratio()).collect()
}
