//! What the server is asked: a file for each resource.

pub mod clock;
pub mod compute;
pub mod health;
pub mod metrics;
pub mod order;
pub mod product;
pub mod search;
pub mod stats;
