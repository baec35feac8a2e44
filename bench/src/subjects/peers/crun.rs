//! crun, the OCI runtime in C.

use super::{Adapter, Role};

pub(super) static CRUN: Adapter =
    Adapter { name: "crun", programs: &["crun"], role: Role::Runtime };
