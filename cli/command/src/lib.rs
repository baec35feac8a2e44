//! What isolab's executables do alike: print, read options that several of them take, hear signals,
//! end, and find each other.
//!
//! `isolab` is the run path, small and quick. `isolab image`, `isolab kernel` and `isolab bench` are the
//! executables `isolab-image`, `isolab-kernel`, `isolab-network` and `isolab-bench`, which it becomes
//! ([`program`]). [`executable`]
//! is what `main` does in each.

#[macro_use]
pub mod output;
pub mod description;
pub mod executable;
pub mod failure;
pub mod fetch;
pub mod format;
mod home;
pub mod logging;
pub mod obtain;
pub mod program;
pub mod signals;

pub use executable::{Executable, run};
