//! Cloud Hypervisor, by its command line.

use std::ffi::OsString;

use super::super::machine::{Boot, CMDLINE, Machine, NO_PCI, arguments, mebibytes};
use super::{Adapter, Role};

pub(super) static CLOUD_HYPERVISOR: Adapter = Adapter {
    name: "cloud-hypervisor",
    programs: &["cloud-hypervisor"],
    role: Role::Machines(&[&MACHINE]),
};

static MACHINE: Machine = Machine {
    peer: Some("cloud-hypervisor"),
    name: "cloud-hypervisor",
    needs_bzimage: false,
    reboot_code: 0,
    arguments: |boot| Ok(words(boot)),
};

fn words(boot: &Boot) -> Vec<OsString> {
    arguments![
        "--kernel",
        &boot.kernel,
        "--initramfs",
        &boot.initrd,
        "--memory",
        format!("size={}M", mebibytes(boot)),
        "--cpus",
        format!("boot={}", boot.cpus),
        "--serial",
        "tty",
        "--console",
        "off",
        "--cmdline",
        format!("{CMDLINE} reboot=k{NO_PCI}"),
    ]
}
