//! crosvm: docs/book/src/running_crosvm/advanced_usage.md, without the sandboxes of its devices, of which it has none here.

use std::ffi::OsString;

use super::super::machine::{Boot, CMDLINE, Machine, arguments, mebibytes};
use super::{Adapter, Role};

pub(super) static CROSVM: Adapter =
    Adapter { name: "crosvm", programs: &["crosvm"], role: Role::Machines(&[&MACHINE]) };

static MACHINE: Machine = Machine {
    peer: Some("crosvm"),
    name: "crosvm",
    needs_bzimage: false,
    // CommandStatus::VmReset (src/main.rs).
    reboot_code: 32,
    arguments: |boot| Ok(words(boot)),
};

fn words(boot: &Boot) -> Vec<OsString> {
    arguments![
        "--no-syslog",
        // Else it ends with 0, however the guest did.
        "--extended-status",
        "run",
        "--disable-sandbox",
        "--mem",
        mebibytes(boot).to_string(),
        "--cpus",
        boot.cpus.to_string(),
        "--initrd",
        &boot.initrd,
        "--serial",
        "type=stdout,hardware=serial,num=1,console",
        "--params",
        format!("{CMDLINE} reboot=k"),
        &boot.kernel,
    ]
}
