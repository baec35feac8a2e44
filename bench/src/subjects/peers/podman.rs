//! podman, with its overlay driver, on a store of the measurement's own.

use std::path::Path;
use std::process::Command;

use super::{Adapter, Role};

pub(super) static PODMAN: Adapter =
    Adapter { name: "podman", programs: &["podman"], role: Role::Engine };

/// podman on the store in the folder `store`.
pub fn command(store: &Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    command.args(["--storage-driver", "overlay"]);
    command
}
