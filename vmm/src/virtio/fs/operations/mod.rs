//! What each FUSE request says, and what its answer looks like. The work is [`Share`]'s.
//!
//! [`Share`]: crate::backend::share::Share

pub mod attributes;
pub mod content;
pub mod directories;
pub mod locks;
pub mod names;
pub mod start;
pub mod xattrs;
