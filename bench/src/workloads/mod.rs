//! What is measured: a file or folder each.

mod containerd;
pub mod density;
pub mod disk;
pub mod engines;
pub mod images;
pub mod jobs;
pub mod machines;
pub mod net;
mod own_store;
pub mod probes;
pub mod runtimes;
pub mod sandboxes;
pub mod service;
pub mod startup;
pub mod tiers;
