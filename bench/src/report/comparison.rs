//! What can be said of one subject beside another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Measurement;
use super::audit::{self, Fault, FaultKind};
use super::pair::{Pair, is_again};
use crate::host::KvmKind;
use crate::statistics::{Interval, LEVEL, of_ratio, p_value};

/// A metric of a subject beside that of its baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// The workload.
    pub benchmark: String,
    /// The metric.
    pub metric: String,
    /// Whose ratio it is.
    pub subject: String,
    /// To whom.
    pub baseline: String,
    /// The subject's median divided by the baseline's; none where a fault forbids it.
    pub ratio: Option<f64>,
    /// Where the ratio lies with 95 % confidence.
    pub ratio_interval: Option<Interval>,
    /// How likely chance alone sets the two as far apart.
    pub p: f64,
    /// Whether they differ.
    pub verdict: Verdict,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// Whether two sets of samples differ, at 5 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The subject's are smaller.
    Less,
    /// The subject's are larger.
    More,
    /// Chance may have done it.
    NoDifference,
}

impl Verdict {
    /// Of `samples` beside `base`, whose p-value is `p`.
    pub(super) fn of(p: f64, median: f64, base: f64) -> Self {
        match p <= LEVEL {
            true if median < base => Verdict::Less,
            true if median > base => Verdict::More,
            _ => Verdict::NoDifference,
        }
    }
}

/// Compares each metric that both of a pair have. Apart from these: those of a subject that is its baseline again.
pub(super) fn compare(
    results: &[Measurement],
    pairs: &[Pair],
    kvm: KvmKind,
) -> (Vec<Comparison>, Vec<Comparison>) {
    let comparisons = pairs.iter().flat_map(|pair| {
        let find = move |subject: &str, metric: &str| {
            results.iter().find(|it| {
                (it.benchmark.as_str(), it.subject.as_str(), it.metric.as_str())
                    == (pair.benchmark.as_str(), subject, metric)
            })
        };
        let control = pair
            .control
            .as_ref()
            .and_then(|metric| Some((find(&pair.subject, metric)?, find(&pair.baseline, metric)?)));
        let mine = results
            .iter()
            .filter(|it| it.benchmark == pair.benchmark && it.subject == pair.subject);
        mine.filter_map(move |subject| {
            let baseline = find(&pair.baseline, &subject.metric)?;
            // The control itself is what it is.
            let control = control.filter(|(control, _)| control.metric != subject.metric);
            Some(one(pair, subject, baseline, audit::faults(pair, subject, baseline, control, kvm)))
        })
    });
    comparisons.partition(|it| !is_again(&it.subject))
}

fn one(
    pair: &Pair,
    subject: &Measurement,
    baseline: &Measurement,
    faults: Vec<Fault>,
) -> Comparison {
    let (ours, theirs) = (&subject.summary, &baseline.summary);
    let p = p_value(&ours.samples, &theirs.samples);
    let is_told = theirs.median > 0.0 && !faults.iter().any(|fault| fault.kind.forbids_ratio());
    Comparison {
        benchmark: pair.benchmark.clone(),
        metric: subject.metric.clone(),
        subject: pair.subject.clone(),
        baseline: pair.baseline.clone(),
        ratio: is_told.then(|| ours.median / theirs.median),
        ratio_interval: of_ratio(&ours.samples, &theirs.samples).filter(|_| is_told),
        p,
        verdict: Verdict::of(p, ours.median, theirs.median),
        faults,
    }
}

/// A sentence for each fault and benchmark: how many comparisons have it.
pub(super) fn remarks(comparisons: &[Comparison]) -> Vec<String> {
    let mut counts: BTreeMap<(&str, FaultKind), usize> = BTreeMap::new();
    for comparison in comparisons {
        let mut kinds: Vec<_> = comparison.faults.iter().map(|fault| fault.kind).collect();
        kinds.dedup();
        for kind in kinds {
            *counts.entry((&comparison.benchmark, kind)).or_default() += 1;
        }
    }
    let sentence = |((benchmark, kind), count): ((&str, FaultKind), usize)| {
        let all = comparisons.iter().filter(|it| it.benchmark == benchmark).count();
        let consequence = if kind.forbids_ratio() { ": no ratio" } else { "" };
        format!(
            "{benchmark}: {count} of {all} comparisons are marked `{}`{consequence}",
            kind.name()
        )
    };
    counts.into_iter().map(sentence).collect()
}
