//! Cloud Hypervisor, by its command line.

use std::ffi::OsString;

use super::{Boot, CMDLINE, NO_PCI, arguments, mebibytes};

pub fn arguments(boot: &Boot) -> Vec<OsString> {
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
