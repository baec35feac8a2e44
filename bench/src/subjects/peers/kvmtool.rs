//! kvmtool, by its command line.

use std::ffi::OsString;

use super::super::machine::{Boot, CMDLINE, Machine, NO_PCI, arguments, mebibytes};
use super::{Adapter, Role};

pub(super) static KVMTOOL: Adapter =
    Adapter { name: "kvmtool", programs: &["lkvm", "kvmtool"], role: Role::Machines(&[&MACHINE]) };

static MACHINE: Machine = Machine {
    peer: Some("kvmtool"),
    name: "kvmtool",
    needs_bzimage: true,
    reboot_code: 0,
    arguments: |boot| Ok(words(boot)),
};

fn words(boot: &Boot) -> Vec<OsString> {
    // It takes no vmlinux; `MachineSubject::peer` has seen to there being a bzImage.
    let kernel = boot.bzimage.as_ref().unwrap_or(&boot.kernel);
    arguments![
        "run",
        "--kernel",
        kernel,
        "--initrd",
        &boot.initrd,
        "--mem",
        mebibytes(boot).to_string(),
        "--cpus",
        boot.cpus.to_string(),
        "--console",
        "serial",
        "--network",
        "mode=none",
        "--params",
        format!("{CMDLINE} reboot=k{NO_PCI}"),
    ]
}
