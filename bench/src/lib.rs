//! Measurements at every level, and the report.

pub mod comparison;
pub mod disk;
mod host;
pub mod images;
mod leftovers;
pub mod machines;
pub mod net;
mod report;
pub mod startup;
mod summary;

pub use host::{Host, KvmKind};
pub use report::{Measurement, Report};
pub use summary::Summary;
