//! What is measured: a file or folder each.

pub mod density;
pub mod disk;
pub mod guest_jobs;
pub mod images;
pub mod machines;
pub mod net;
pub mod probes;
pub mod runtimes;
pub mod service;
pub mod startup;
