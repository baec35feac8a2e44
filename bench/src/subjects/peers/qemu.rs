//! QEMU's machines, with nothing that was not asked for; and the same q35 by its interpreter TCG, which needs no KVM:
//! virtualisation by software.

use std::ffi::OsString;
use std::io;

use super::super::machine::{
    Boot, CMDLINE, Device, EngineKind, MAC, Machine, NO_PCI, arguments, as_option, cache_word,
    mebibytes,
};
use super::{Adapter, Role};

const PROGRAMS: &[&str] = &["qemu-system-x86_64"];

pub(super) static QEMU: Adapter =
    Adapter { name: "qemu", programs: PROGRAMS, role: Role::Machines(&[&MICROVM, &Q35, &PC]) };
pub(super) static TCG: Adapter =
    Adapter { name: "qemu-tcg", programs: PROGRAMS, role: Role::Machines(&[&SOFTWARE]) };

/// What QEMU calls a machine and its devices.
struct Model {
    machine: &'static str,
    cpu: &'static str,
    /// The end of the kernel's command line.
    reboot: &'static str,
    /// A disk's front end, and a network card's.
    disk: &'static str,
    net: &'static str,
}

/// Virtio over MMIO, no PCI. docs/system/i386/microvm.rst: direct kernel boot by qboot, none of the optional devices
/// but the serial port and the RTC (which a kernel with its driver otherwise awaits for 1.5 s), and a triple fault as
/// the way to reboot, as there is no i8042.
pub static MICROVM: Machine = machine("qemu", "qemu-microvm", |boot| {
    words(
        &Model {
            machine: "microvm,accel=kvm,x-option-roms=off,isa-serial=on,rtc=on,pit=off,pic=off,acpi=off",
            cpu: "host",
            reboot: "reboot=t",
            disk: "virtio-blk-device,drive=disk,iothread=io",
            net: "virtio-net-device,",
        },
        NO_PCI,
        boot,
    )
});
/// Virtio over PCI. A network card without the firmware to boot from it.
const Q35_MODEL: Model = Model {
    machine: "q35,accel=kvm",
    cpu: "host",
    reboot: "reboot=k",
    disk: "virtio-blk-pci,drive=disk,iothread=io",
    net: "virtio-net-pci,romfile=,",
};
/// Virtio over PCI.
pub static Q35: Machine = machine("qemu", "qemu-q35", |boot| words(&Q35_MODEL, "", boot));
/// PIIX IDE and e1000, as a physical PC, which our emulated machine is: no paravirtual clock or interrupts.
pub static PC: Machine = machine("qemu", "qemu-pc", |boot| {
    words(
        &Model {
            machine: "pc,accel=kvm",
            cpu: "host,kvm=off,-hypervisor",
            // IDE has no thread of its own, as virtio has.
            disk: "ide-hd,drive=disk,bus=ide.0",
            net: "e1000,romfile=,",
            ..Q35_MODEL
        },
        "",
        boot,
    )
});
/// The q35 whose every instruction is translated.
static SOFTWARE: Machine = machine("qemu-tcg", "qemu-tcg", |boot| {
    words(&Model { machine: "q35,accel=tcg", cpu: "max", ..Q35_MODEL }, "", boot)
});

const fn machine(
    peer: &'static str,
    name: &'static str,
    arguments: fn(&Boot) -> io::Result<Vec<OsString>>,
) -> Machine {
    Machine { peer: Some(peer), name, needs_bzimage: false, reboot_code: 0, arguments }
}

fn words(model: &Model, more: &str, boot: &Boot) -> io::Result<Vec<OsString>> {
    let mut words = arguments![
        "-M",
        model.machine,
        "-cpu",
        model.cpu,
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
        format!("{CMDLINE} {}{more}", model.reboot),
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
            words.extend(arguments![
                "-object",
                "iothread,id=io",
                "-drive",
                format!("file={path},format=raw,if=none,id=disk,cache={cache},aio={aio}"),
                "-device",
                model.disk,
            ]);
        }
        Some(Device::Net(net)) => {
            let vhost = if net.vhost { "on" } else { "off" };
            words.extend(arguments![
                "-netdev",
                format!("tap,id=net,ifname={},script=no,downscript=no,vhost={vhost}", net.tap),
                "-device",
                format!("{}netdev=net,mac={MAC}", model.net),
            ]);
        }
    }
    Ok(words)
}
