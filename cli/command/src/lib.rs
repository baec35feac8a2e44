//! What isolab's executables do alike: print, read options that several of them take, hear signals,
//! end, and find each other.
//!
//! `isolab` is the run path, small and quick. What else is typed as a command of it is [`elsewhere`], in executables
//! that it becomes ([`program`]). [`executable`] is what `main` does in each.

#[macro_use]
pub mod output;
pub mod attached;
pub mod description;
pub mod elsewhere;
pub mod environment;
pub mod executable;
pub mod failure;
pub mod fetch;
pub mod format;
mod home;
pub mod instances;
pub mod logging;
pub mod obtain;
pub mod program;
pub mod signals;
pub mod terminal;

pub use executable::{Executable, run};
