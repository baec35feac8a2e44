//! Our own monitor, by its command line.

use std::ffi::OsString;

use super::{
    Boot, CMDLINE, Device, EngineKind, MAC, Machine, arguments, as_option, cache_word, mebibytes,
};

pub fn arguments(machine: Machine, boot: &Boot) -> Vec<OsString> {
    let mut words = arguments![
        "vm",
        "run",
        "--kernel",
        &boot.kernel,
        "--initrd",
        &boot.initrd,
        "--memory",
        format!("{}M", mebibytes(boot)),
        "--cpus",
        boot.cpus.to_string(),
    ];
    words.extend(arguments!["--cmdline", format!("{CMDLINE} reboot=k")]);
    if machine == Machine::OwnEmulated {
        words.extend(arguments!["--devices", "emulated"]);
    }
    match &boot.device {
        None => {}
        Some(Device::Disk(disk)) => {
            let engine = match disk.engine {
                EngineKind::Sync => "sync",
                EngineKind::IoUring => "io_uring",
            };
            let (path, cache) = (as_option(&disk.path), cache_word(disk.cache));
            words.extend(arguments!["--disk", format!("{path},cache={cache},engine={engine}")]);
        }
        Some(Device::Net(net)) => {
            let vhost = if net.vhost { ",vhost=on" } else { "" };
            words.extend(arguments!["--net", format!("tap={},mac={MAC}{vhost}", net.tap)]);
        }
    }
    words
}
