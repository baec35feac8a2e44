//! Measurements at every level, and the report.
//!
//! [`subjects`] is who takes part, [`workloads`] what they do, one file each; the [`runner`] gives them their turns, the
//! [`report`] compares, audits and shows what it found, by [`statistics`] that assume nothing of a distribution.

mod family;
mod host;
pub mod leftovers;
pub mod machines;
pub mod meter;
pub mod metrics;
pub mod report;
pub mod runner;
pub mod statistics;
pub mod subjects;
pub mod workloads;

pub use host::{Host, KvmKind};
