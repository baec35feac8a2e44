//! The emulated machine with nothing in the guest that was made for it: needs a host with a
//! working KVM, see `scripts/kvm-host`.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolab_tests::devices::{
    EMULATED, EMULATED_MODULES, disk, exchange_streams, iso, network_script, stock_initramfs, text,
    tool, value,
};
use isolab_tests::guests::{Initramfs, QUIET, boot, boot_slim};
use isolab_tests::{Run, Sandbox, cached};
use nix::sys::signal::Signal;

#[test]
fn the_root_file_system_can_be_an_ide_disk() {
    EMULATED.root_file_system();
}

#[test]
fn what_a_guest_writes_is_on_the_disk_in_every_cache_mode_and_engine() {
    EMULATED.cache_modes_and_engines();
}

#[test]
fn fio_verifies_every_cache_mode_and_engine_from_two_processors() {
    EMULATED.fio_verifies();
}

#[test]
fn a_killed_machine_loses_nothing_that_was_synced() {
    EMULATED.synced_data_survives_a_kill();
}

#[test]
fn a_full_host_disk_is_an_io_error_in_the_guest_and_no_more() {
    EMULATED.full_host_disk();
}

#[test]
fn the_stock_kernel_s_own_drivers_run_disk_cd_and_network_and_see_no_hypervisor() {
    let dir = tempfile::tempdir().unwrap();
    let hard_disk = disk(dir.path(), "disk.img", 8 << 20);
    let cd = iso(dir.path(), b"hello from the CD");
    let script = format!(
        "dd if=/dev/urandom of=/data bs=64k count=4 2>/dev/null
         dd if=/data of=/dev/sda conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches
         [ -b /dev/sda ] && head -c 262144 /dev/sda | cmp - /data && echo disk=same
         mount -t iso9660 -o ro /dev/sr0 /mnt && echo cd=$(cat /mnt/hello)
         echo hypervisor=$(grep -c hypervisor /proc/cpuinfo)
         echo clocks=$(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)
         echo virtio=$(ls /sys/bus/virtio/devices 2>/dev/null | wc -l)
         dmesg | grep -E 'ata_piix 0000|e1000 0000.*eth0|Hypervisor detected'
         for port in 1 2 3; do echo hello from ttyS$port >/dev/ttyS$port; done
         echo uarts=$(dmesg | grep -c 'ttyS[0-3] at I/O .* is a 16550A')
         rtc=/sys/class/rtc/rtc0; before=$(grep rtc0 /proc/interrupts | awk '{{print $2}}')
         # Again where that moment has passed before the alarm was set.
         until echo $(($(cat $rtc/since_epoch) + 5)) >$rtc/wakealarm; do :; done 2>/dev/null
         alarms() {{ echo $(($(grep rtc0 /proc/interrupts | awk '{{print $2}}') - before)); }}
         until [ $(alarms) -gt 0 ]; do sleep 0.1; done
         echo alarms=$(alarms)
         dmesg | grep -E 'ACPI (BIOS )?(Error|Warning)|BIOS Error|Firmware Bug|nobody cared|ata.*exception|XSAVE consistency'
         {}",
        network_script(2)
    );
    let options = ["--devices", "emulated", "--cmdline", QUIET, "--disk", text(&hard_disk)];
    let (run, _dir) = boot(
        &cached("kernels/stock/vmlinuz"),
        stock_initramfs(&EMULATED_MODULES, &script),
        &options,
    );
    let run = run.args(&["--cdrom", text(&cd), "--net", "tap=test2,mac=02:00:00:00:00:0a"]);
    let lines = ["com2", "com3", "com4"].map(|port| (port, dir.path().join(port)));
    let run = lines
        .iter()
        .fold(run, |run, (port, file)| run.args(&["--serial", &format!("{port}={}", text(file))]));
    let done = exchange_streams(run.start(Stdio::piped()), 2);
    let output = done.stdout;
    for (number, (_, file)) in (1..).zip(&lines) {
        assert_eq!(fs::read_to_string(file).unwrap(), format!("hello from ttyS{number}\r\n"));
    }
    assert_eq!(value(&output, "uarts"), "4", "{output}");
    assert_eq!(value(&output, "alarms"), "1", "{output}");
    assert_eq!(value(&output, "disk"), "same");
    assert_eq!(value(&output, "cd"), "hello from the CD");
    assert_eq!(value(&output, "hypervisor"), "0");
    assert_eq!(value(&output, "virtio"), "0");
    assert_eq!(value(&output, "mac"), "02:00:00:00:00:0a");
    assert!(!value(&output, "clocks").contains("kvm"), "{output}");
    assert!(output.contains("ata_piix") && output.contains("e1000"), "{output}");
    for complaint in ["Hypervisor detected", "Error", "Bug", "nobody cared", "exception", "XSAVE"] {
        assert!(!output.contains(complaint), "{output}");
    }
}

#[test]
fn a_network_carries_streams_both_ways() {
    let done = EMULATED.network(3, ",mac=02:00:00:00:00:0b");
    assert_eq!(value(&done.stdout, "mac"), "02:00:00:00:00:0b");
}

#[test]
fn what_only_virtio_can_do_is_refused() {
    let run = |option: &str, value: &str| {
        let (run, _dir) = boot_slim("", &["--devices", "emulated", option, value]);
        run.finish()
    };
    for (option, value, word) in [
        ("--share", "/tmp,tag=t", "share"),
        ("--vsock", "cid=3,path=/tmp/none", "vsock"),
        ("--balloon", "1M", "balloon"),
        ("--net", "tap,queues=2", "queue"),
        ("--net", "tap,vhost=on", "vhost"),
    ] {
        let done = run(option, value);
        assert_eq!(done.code(), Some(125), "{done:?}");
        assert!(done.stderr.contains(word) && done.stderr.contains("virtio"), "{done:?}");
    }
}

const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";

/// A disk as `grub-install` leaves it: GRUB in the MBR and behind it, one partition with /boot.
fn grub_disk(folder: &Path, boot_files: &[(&str, PathBuf)], entry: &str) -> PathBuf {
    const PARTITION: u64 = 1 << 20;
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("boot/grub")).expect("files of our own and GRUB's");
    for (name, file) in boot_files {
        fs::copy(file, tree.join("boot").join(name)).expect("files of our own and GRUB's");
    }
    let config = format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\necho GRUB is here\n{entry}\n"
    );
    fs::write(tree.join("boot/grub/grub.cfg"), config).expect("files of our own and GRUB's");

    let path = disk(folder, "grub.img", 64 << 20);
    let table = format!("echo 2048,,83,* | sfdisk -q {}", text(&path));
    tool("sh", &["-c", &table]);
    let offset = format!("offset={PARTITION}");
    let tree = text(&tree);
    tool("mke2fs", &["-q", "-F", "-t", "ext2", "-d", tree, "-E", &offset, text(&path), "63M"]);
    let core = folder.join("core.img");
    let modules = [
        "biosdisk",
        "part_msdos",
        "ext2",
        "linux",
        "normal",
        "serial",
        "terminal",
        "echo",
        "reboot",
    ];
    let options = ["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", text(&core)];
    tool("grub-mkimage", &[&options[..], &modules].concat());

    let first = fs::read("/usr/lib/grub/i386-pc/boot.img").expect("files of our own and GRUB's");
    let core = fs::read(core).expect("files of our own and GRUB's");
    assert!((core.len() as u64) < PARTITION - 512);
    let mut image =
        OpenOptions::new().write(true).open(&path).expect("files of our own and GRUB's");
    // The rest of the sector is the partition table.
    image.write_all(&first[..440]).expect("files of our own and GRUB's");
    image.seek(SeekFrom::Start(512)).expect("files of our own and GRUB's");
    image.write_all(&core).expect("files of our own and GRUB's");
    path
}

/// `isolab vm run` from the reset vector on.
fn power_on(disk: &Path, memory: &str) -> Run {
    let options = ["vm", "run", "--devices", "emulated", "--memory", memory];
    Sandbox::empty().isolab(&options).args(&["--firmware", SEABIOS, "--disk", text(disk)])
}

#[test]
fn firmware_starts_grub_from_the_disk_and_grub_the_stock_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo isolab reached init
                  echo maker=$(cat /sys/class/dmi/id/bios_vendor)
                  echo hypervisor=$(grep -c hypervisor /proc/cpuinfo)
                  poweroff -f";
    let initramfs = Initramfs::with_script(script).write(dir.path());
    let files = [("vmlinuz", cached("kernels/stock/vmlinuz")), ("initrd", initramfs)];
    // Linux gives ten ticks of the PIT 40 ms to arrive, which they may not on a busy emulated host.
    let entry = format!(
        "set timeout=-1
         menuentry The_first {{ echo nobody typed; reboot; }}
         menuentry The_second {{
             linux /boot/vmlinuz {QUIET} no_timer_check
             initrd /boot/initrd
         }}"
    );
    let image = grub_disk(dir.path(), &files, &entry);
    let mut running = power_on(&image, "256M").start(Stdio::piped());
    // The menu, which asks the BIOS for keys: those come from COM1 through SeaBIOS, which polls it
    // without raising RTS. ^N is GRUB's "next".
    running.wait_for("The_second");
    running.feed(b"\x0e\r");
    let output = running.finish().success();
    for words in ["SeaBIOS", "GRUB is here", "isolab reached init"] {
        assert!(output.contains(words), "no {words} in {output}");
    }
    assert_eq!(value(&output, "hypervisor"), "0");
    let shown = Command::new("sfdisk").args(["-V", text(&image)]).output().unwrap();
    assert!(shown.status.success(), "the partition table survived");
}

#[test]
fn memtest86_starts_and_its_tests_find_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("memtest", PathBuf::from("/boot/memtest86+x64.bin"))];
    let image = grub_disk(dir.path(), &files, "linux /boot/memtest console=ttyS0,115200\nboot");
    let mut running = power_on(&image, "48M").start(Stdio::null());
    running.wait_for("Memtest86+");
    // The last test, which waits for minutes.
    running.wait_for("[Bit fade");
    running.signal(Signal::SIGINT);
    let done = running.finish();
    assert_eq!(done.code(), Some(137));
    let errors: Vec<&str> = done.stdout.split("Errors: ").skip(1).map(|rest| &rest[..2]).collect();
    assert!(!errors.is_empty() && errors.iter().all(|count| *count == "0 "), "{errors:?}");
}
