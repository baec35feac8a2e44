//! youki, the OCI runtime in Rust.

use super::{Adapter, Role};

pub(super) static YOUKI: Adapter =
    Adapter { name: "youki", programs: &["youki"], role: Role::Runtime };
