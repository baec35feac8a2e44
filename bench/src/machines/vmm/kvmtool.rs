//! kvmtool, by its command line.

use std::ffi::OsString;

use super::{Boot, CMDLINE, NO_PCI, arguments, mebibytes};

pub fn arguments(boot: &Boot) -> Vec<OsString> {
    // It takes no vmlinux; `Subject::peer` has seen to there being a bzImage.
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
