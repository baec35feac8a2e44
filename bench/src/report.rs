//! The shape of every benchmark's result, as a table and as JSON.

use std::fmt::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::host::Host;
use crate::summary::Summary;

/// One metric of one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// A level, or a peer's name.
    pub subject: String,
    /// What was measured, for example `to_first_output`.
    pub metric: String,
    /// The unit of all figures.
    pub unit: String,
    /// The samples and their order statistics.
    #[serde(flatten)]
    pub summary: Summary,
}

/// What was measured, and what was not.
pub struct Findings {
    /// By subject and metric.
    pub results: Vec<Measurement>,
    /// One sentence for each thing that was left out.
    pub notes: Vec<String>,
}

/// Everything one run of a benchmark found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The host that was measured on.
    pub host: Host,
    /// What was measured, by subject and metric.
    pub results: Vec<Measurement>,
    /// What was left out, and why: one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Report {
    /// What was measured of `metric` at `subject`, if it was.
    pub fn find(&self, subject: &str, metric: &str) -> Option<&Measurement> {
        self.results.iter().find(|m| m.subject == subject && m.metric == metric)
    }

    /// The summary of `metric` at `subject`.
    pub fn summary(&self, subject: &str, metric: &str) -> Option<&Summary> {
        self.find(subject, metric).map(|found| &found.summary)
    }

    /// One row a subject for `metric`, with the ratio of its median to that of `baseline`.
    pub fn table(&self, metric: &str, baseline: &str) -> String {
        let base = self.summary(baseline, metric).map(|summary| summary.median);
        let mut table = plain_table(&["subject", "min", "median", "p95", "max", "ratio"]);
        for measurement in self.results.iter().filter(|m| m.metric == metric) {
            let Summary { min, median, p95, max, .. } = measurement.summary;
            let figures = [min, median, p95, max].map(|figure| format!("{figure:.1}"));
            let ratio = base.map_or_else(|| "-".to_owned(), |base| format!("{:.2}", median / base));
            let row = [measurement.subject.clone()].into_iter().chain(figures).chain([ratio]);
            table.add_row(row);
        }
        table.to_string()
    }

    /// The medians of `metrics`, one row a subject; a metric that a subject lacks is a dash.
    pub fn medians(&self, metrics: &[&str]) -> String {
        let mut table = plain_table(&[&["subject"], metrics].concat());
        let mut subjects: Vec<&str> = Vec::new();
        for measurement in &self.results {
            if !subjects.contains(&measurement.subject.as_str()) {
                subjects.push(&measurement.subject);
            }
        }
        for subject in subjects {
            let cell = |metric: &&str| match self.summary(subject, metric) {
                Some(summary) => format!("{:.1}", summary.median),
                None => "-".to_owned(),
            };
            table.add_row([subject.to_owned()].into_iter().chain(metrics.iter().map(cell)));
        }
        table.to_string()
    }
}

/// A table without rows; all columns but the first are numbers.
pub fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        writeln!(text, "host          {} x{}, Linux {}", self.cpu, self.cpus, self.kernel)?;
        writeln!(text, "KVM           {}", self.kvm.describe())?;
        if let Some(kernel) = &self.guest_kernel {
            writeln!(text, "guest kernel  {kernel}")?;
        }
        if let (Some(image), Some(digest)) = (&self.image, &self.image_digest) {
            writeln!(text, "image         {image} {digest}")?;
        }
        f.write_str(text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::KvmKind;

    fn report() -> Report {
        let measurement = |subject: &str, metric: &str, samples: Vec<f64>| Measurement {
            subject: subject.to_owned(),
            metric: metric.to_owned(),
            unit: "ms".to_owned(),
            summary: Summary::of(samples).unwrap(),
        };
        Report {
            host: Host {
                cpu: "a cpu".to_owned(),
                cpus: 2,
                kvm: KvmKind::Emulated,
                kernel: "6.1".to_owned(),
                guest_kernel: None,
                image: Some("busybox".to_owned()),
                image_digest: Some("sha256:0".to_owned()),
            },
            results: vec![
                measurement("process", "to_exit", vec![2.0, 4.0, 3.0]),
                measurement("container", "to_exit", vec![6.0]),
                measurement("container", "setup", vec![1.25]),
            ],
            notes: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_of_medians_to_the_baseline() {
        let table = report().table("to_exit", "process");
        let row = |name: &str| table.lines().find(|l| l.contains(name)).unwrap().to_owned();
        assert!(row("process").ends_with("1.00 |"), "{table}");
        assert!(row("container").ends_with("2.00 |"), "{table}");
    }

    #[test]
    fn a_metric_that_a_subject_lacks_is_a_dash() {
        let table = report().medians(&["to_exit", "setup"]);
        let process = table.lines().find(|l| l.contains("process")).unwrap();
        assert!(process.contains("3.0") && process.contains('-'), "{table}");
    }

    #[test]
    fn json_has_the_promised_shape() {
        let json = serde_json::to_value(report()).unwrap();
        let first = &json["results"][0];
        for key in ["subject", "metric", "unit", "samples", "min", "median", "p95", "max"] {
            assert!(!first[key].is_null(), "{key} is missing in {first}");
        }
        assert_eq!(json["host"]["kvm"], "emulated");
    }
}
