//! Measurements at every level, and the report.

mod host;
mod report;
pub mod startup;
mod summary;

pub use host::{Host, KvmKind};
pub use report::{Measurement, Report};
pub use summary::Summary;
