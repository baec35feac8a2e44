//! Measurements at every level, and the report.

mod host;
pub mod images;
pub mod machines;
mod report;
pub mod startup;
mod summary;

pub use host::{Host, KvmKind};
pub use report::{Measurement, Report};
pub use summary::Summary;
