//! Firecracker: docs/getting-started.md, without the API server.
//!
//! Its ACPI tables promise no legacy interrupts, so that a kernel without SERIAL_8250_PNP gives its
//! UART none, and init's line would be lost; with the MP table that it has as well there is an
//! interrupt, and nothing slower.

use std::ffi::OsString;
use std::fs;
use std::io;

use serde_json::json;

use super::super::machine::{Boot, CMDLINE, Machine, NO_PCI, arguments, mebibytes};
use super::{Adapter, Role};

pub(super) static FIRECRACKER: Adapter =
    Adapter { name: "firecracker", programs: &["firecracker"], role: Role::Machines(&[&MACHINE]) };

pub(in crate::subjects) static MACHINE: Machine = Machine {
    peer: Some("firecracker"),
    name: "firecracker",
    needs_bzimage: false,
    reboot_code: 0,
    arguments: words,
};

fn words(boot: &Boot) -> io::Result<Vec<OsString>> {
    let config = json!({
        "boot-source": {
            "kernel_image_path": boot.kernel,
            "initrd_path": boot.initrd,
            "boot_args": format!("{CMDLINE} reboot=k acpi=off{NO_PCI}"),
        },
        "drives": [],
        "machine-config": { "vcpu_count": boot.cpus, "mem_size_mib": mebibytes(boot) },
    });
    let path = boot.scratch.join("firecracker.json");
    fs::write(&path, config.to_string())?;
    Ok(arguments!["--no-api", "--config-file", path])
}
