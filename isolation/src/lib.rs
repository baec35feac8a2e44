//! The four levels of isolation behind one trait.

pub mod host;
mod level;
pub mod timeline;

pub use level::{Level, UnknownLevel};
