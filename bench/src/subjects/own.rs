//! Our own monitor, by its command line.

use std::ffi::OsString;
use std::io;

use super::machine::{
    Boot, CMDLINE, Device, EngineKind, MAC, Machine, arguments, as_option, cache_word, mebibytes,
};

/// `--devices virtio`: virtio over PCI.
pub static VIRTIO: Machine = machine("vmm", |boot| Ok(words(&[], boot)));
/// `--devices emulated`: PIIX IDE and e1000, and no hint of a hypervisor.
pub static EMULATED: Machine =
    machine("vmm-emulated", |boot| Ok(words(&["--devices", "emulated"], boot)));

const fn machine(name: &'static str, arguments: fn(&Boot) -> io::Result<Vec<OsString>>) -> Machine {
    Machine { peer: None, name, needs_bzimage: false, reboot_code: 0, arguments }
}

fn words(devices: &[&str], boot: &Boot) -> Vec<OsString> {
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
    words.extend(devices.iter().map(OsString::from));
    // Emulated devices have none.
    let poll = boot.poll.filter(|_| devices.is_empty());
    let poll = poll.map_or(String::new(), |micros| format!(",poll={micros}"));
    match &boot.device {
        None => {}
        Some(Device::Disk(disk)) => {
            let engine = match disk.engine {
                EngineKind::Sync => "sync",
                EngineKind::IoUring => "io_uring",
            };
            let (path, cache) = (as_option(&disk.path), cache_word(disk.cache));
            words.extend(arguments![
                "--disk",
                format!("{path},cache={cache},engine={engine}{poll}")
            ]);
        }
        Some(Device::Net(net)) => {
            let vhost = if net.vhost { ",vhost=on" } else { ",vhost=off" };
            words.extend(arguments!["--net", format!("tap={},mac={MAC}{vhost}{poll}", net.tap)]);
        }
    }
    words
}
