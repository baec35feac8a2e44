//! runc, the reference of the OCI runtime specification.

use super::{Adapter, Role};

pub(super) static RUNC: Adapter =
    Adapter { name: "runc", programs: &["runc"], role: Role::Runtime };
