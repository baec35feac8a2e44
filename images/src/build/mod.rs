//! Building images.
pub(crate) mod cache;
