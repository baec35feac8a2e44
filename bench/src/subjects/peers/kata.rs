//! Kata Containers, as containerd starts it: its shim is beside containerd's own.

use super::{Adapter, Role, Shim};

pub(super) static KATA: Adapter =
    Adapter { name: "kata", programs: &["containerd-shim-kata-v2"], role: Role::Shim(&SHIM) };

static SHIM: Shim = Shim { runtime: "io.containerd.kata.v2", memory };

/// Guest RAM: without it a guest has what Kata's configuration says, and that beside a container's limit. A configuration has to
/// have `default_memory` among its `enable_annotations`, as Kata's own has.
fn memory(mebibytes: u64) -> Vec<String> {
    vec![format!("io.katacontainers.config.hypervisor.default_memory={mebibytes}")]
}
