//! Measurements at every level, and the report.

pub mod comparison;
pub mod disk;
mod host;
pub mod images;
pub mod leftovers;
pub mod machines;
pub mod net;
mod report;
mod rounds;
pub mod runtimes;
pub mod service;
pub mod startup;
mod summary;

pub use host::{Host, KvmKind};
pub use report::{Findings, Measurement, Report};
pub use summary::Summary;
