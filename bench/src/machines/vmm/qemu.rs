//! QEMU's machines, with nothing that was not asked for.

use std::ffi::OsString;

use super::{
    Boot, CMDLINE, Device, EngineKind, MAC, Machine, NO_PCI, arguments, as_option, cache_word,
    mebibytes,
};

pub fn arguments(machine: Machine, boot: &Boot) -> Vec<OsString> {
    let (model, cpu, more) = match machine {
        // docs/system/i386/microvm.rst: direct kernel boot by qboot, none of the optional devices
        // but the serial port and the RTC (which a kernel with its driver otherwise awaits for
        // 1.5 s), and a triple fault as the way to reboot, as there is no i8042.
        Machine::QemuMicrovm => (
            "microvm,accel=kvm,x-option-roms=off,isa-serial=on,rtc=on,pit=off,pic=off,acpi=off",
            "host",
            format!("reboot=t{NO_PCI}"),
        ),
        Machine::QemuQ35 => ("q35,accel=kvm", "host", "reboot=k".to_owned()),
        // As a physical PC, which our emulated machine is: no paravirtual clock or interrupts.
        _ => ("pc,accel=kvm", "host,kvm=off,-hypervisor", "reboot=k".to_owned()),
    };
    let mut words = arguments![
        "-M",
        model,
        "-cpu",
        cpu,
        "-smp",
        boot.cpus.to_string(),
        "-m",
        format!("{}M", mebibytes(boot)),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-kernel",
        &boot.kernel,
        "-initrd",
        &boot.initrd,
        "-append",
        format!("{CMDLINE} {more}"),
    ];
    match &boot.device {
        None => {}
        Some(Device::Disk(disk)) => {
            let aio = match disk.engine {
                EngineKind::Sync => "threads",
                EngineKind::IoUring => "io_uring",
            };
            let cache = cache_word(disk.cache);
            let path = as_option(&disk.path);
            // A thread for the device, as ours has one; IDE cannot.
            let device = match machine {
                Machine::QemuMicrovm => "virtio-blk-device,drive=disk,iothread=io",
                Machine::QemuQ35 => "virtio-blk-pci,drive=disk,iothread=io",
                _ => "ide-hd,drive=disk,bus=ide.0",
            };
            words.extend(arguments![
                "-object",
                "iothread,id=io",
                "-drive",
                format!("file={path},format=raw,if=none,id=disk,cache={cache},aio={aio}"),
                "-device",
                device,
            ]);
        }
        Some(Device::Net(net)) => {
            let vhost = if net.vhost { "on" } else { "off" };
            let device = match machine {
                Machine::QemuMicrovm => "virtio-net-device,",
                // Without the firmware to boot from it.
                Machine::QemuQ35 => "virtio-net-pci,romfile=,",
                _ => "e1000,romfile=,",
            };
            words.extend(arguments![
                "-netdev",
                format!("tap,id=net,ifname={},script=no,downscript=no,vhost={vhost}", net.tap),
                "-device",
                format!("{device}netdev=net,mac={MAC}"),
            ]);
        }
    }
    words
}
