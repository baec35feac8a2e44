//! What is wrong with a comparison, said beside it. With some faults there is no ratio.
//!
//! The faults are those of van der Kouwe et al., "Benchmarking Crimes" (arXiv 1801.02381), that a runner can see.

use serde::{Deserialize, Serialize};

use super::Measurement;
use super::pair::Pair;
use crate::host::KvmKind;
use crate::statistics::{FEWEST, Interval, of_ratio};

/// An interval of a median wider than this part of it says next to nothing.
const WIDEST: f64 = 0.5;
/// By how much the control may differ, up or down: what a scheduler's and a timer's interrupts take.
const CONTROL: f64 = 0.10;

/// A fault, and what is behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which one.
    pub kind: FaultKind,
    /// In a few words.
    pub text: String,
}

/// What may be wrong with a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The two were not measured in the same rounds.
    NotInterleaved,
    /// There are too few samples to tell a difference from chance.
    NotRepeated,
    /// The interval of a median is too wide.
    TooNoisy,
    /// The two do different things.
    NotTheSameWork,
    /// What must cost the same does not, so that something else than the subjects is compared.
    Control,
    /// The host's virtualisation is emulated: ratios are this emulator's.
    Emulated,
}

impl FaultKind {
    /// Whether it leaves no ratio. An emulator slows the two alike, if not equally: its ratio is told, and marked.
    pub fn forbids_ratio(self) -> bool {
        self != FaultKind::Emulated
    }

    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::NotInterleaved => "not interleaved",
            FaultKind::NotRepeated => "not repeated",
            FaultKind::TooNoisy => "too noisy",
            FaultKind::NotTheSameWork => "not the same work",
            FaultKind::Control => "control differs",
            FaultKind::Emulated => "emulated",
        }
    }
}

/// The faults of comparing `subject` with `baseline`, of which `control` are the like measurements of the control.
pub(super) fn faults(
    pair: &Pair,
    subject: &Measurement,
    baseline: &Measurement,
    control: Option<(&Measurement, &Measurement)>,
    kvm: KvmKind,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut add = |kind, text: String| faults.push(Fault { kind, text });
    if subject.rounds != baseline.rounds {
        add(FaultKind::NotInterleaved, "other rounds than the baseline's".to_owned());
    }
    let fewest = subject.rounds.len().min(baseline.rounds.len());
    if fewest < FEWEST as usize {
        add(FaultKind::NotRepeated, format!("{fewest} samples; {FEWEST} are the fewest"));
    }
    for side in [subject, baseline] {
        let (Interval { low, high }, median) = (side.summary.interval, side.summary.median);
        // Of one sample there is no telling.
        if side.rounds.len() > 1 && high - low > WIDEST * median {
            let text = format!("{}: {low:.4} to {high:.4} around {median:.4}", side.subject);
            add(FaultKind::TooNoisy, text);
        }
    }
    if let Some(other) = &pair.other_work {
        add(FaultKind::NotTheSameWork, other.clone());
    }
    if let Some((theirs, base)) = control
        && let Some(ratio) = of_ratio(&theirs.summary.samples, &base.summary.samples)
        && (ratio.high < 1.0 - CONTROL || ratio.low > 1.0 + CONTROL)
    {
        let metric = &theirs.metric;
        let text = format!("{metric} costs {:.2} to {:.2} times as much", ratio.low, ratio.high);
        add(FaultKind::Control, text);
    }
    if matches!(kvm, KvmKind::Emulated | KvmKind::EmulatedIcount) {
        add(FaultKind::Emulated, "by QEMU's TCG".to_owned());
    }
    faults
}
