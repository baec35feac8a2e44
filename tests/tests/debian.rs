//! A whole Debian, as `scripts/make-debian-disk` installs it: firmware, GRUB, the stock kernel and
//! systemd, with nothing in it that was made for us. Needs a host with a working KVM, and minutes
//! where that is emulated.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolab_tests::devices::{text, tool, value};
use isolab_tests::{Done, Running, Sandbox, cached};

const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";
/// How the partition's file system is addressed inside the disk.
const PARTITION: &str = "?offset=1048576";

/// A disk of the test's own.
fn debian_disk(folder: &Path) -> PathBuf {
    let disk = folder.join("disk.img");
    let original = cached("images/debian-disk/disk.img");
    tool("cp", &["--sparse=always", text(&original), text(&disk)]);
    disk
}

/// Logs in on the serial console, looks around, leaves a file, and turns the machine off.
fn log_in_and_power_off(mut running: Running) -> Done {
    running.wait_for("debian login: ");
    running.feed(b"root\n");
    running.wait_for("Password: ");
    running.feed(b"debian\n");
    running.wait_for("root@debian:~# ");
    // The empty line keeps the terminal's control codes off the first value.
    running.feed(
        b"echo; echo virt=$(systemd-detect-virt); \
          echo hypervisor=$(grep -cw hypervisor /proc/cpuinfo); \
          echo init=$(cat /proc/1/comm); echo root=$(findmnt -no SOURCE,FSTYPE /); \
          echo nic=$(basename $(readlink /sys/class/net/e*/device/driver)); \
          echo bound=$(dmesg | grep -oE '(ata_piix|e1000) 0000:' | sort -u | wc -l); \
          echo kept >/root/kept; echo looked=around\n",
    );
    running.wait_for("\nlooked=around");
    running.feed(b"poweroff\n");
    let done = running.finish();
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert_eq!(value(&done.stdout, "init"), "systemd");
    done
}

/// The journal is replayed, nothing is amiss, and what was written is there.
fn assert_clean(disk: &Path) {
    let partition = format!("{}{PARTITION}", text(disk));
    let state = Command::new("dumpe2fs").args(["-h", &partition]).output().expect("it runs");
    let state = String::from_utf8_lossy(&state.stdout).into_owned();
    assert!(state.contains("clean") && !state.contains("needs_recovery"), "{state}");
    tool("e2fsck", &["-fn", &partition]);
    let kept = Command::new("debugfs").args(["-R", "cat /root/kept", &partition]).output();
    assert_eq!(kept.expect("debugfs runs").stdout, b"kept\n");
}

#[test]
fn a_disk_with_debian_starts_from_firmware_to_its_login_and_is_clean_after_poweroff() {
    let dir = tempfile::tempdir().unwrap();
    let disk = debian_disk(dir.path());
    let options = ["vm", "run", "--devices", "emulated", "--memory", "512M"];
    let run = Sandbox::empty().isolab(&options).args(&["--firmware", SEABIOS]);
    let mut running = run.args(&["--disk", text(&disk), "--net", "tap"]).start(Stdio::piped());
    for milestone in ["SeaBIOS", "Loading Linux", "Loading initial ramdisk", "Linux version"] {
        running.wait_for(milestone);
    }
    let output = log_in_and_power_off(running).stdout;
    assert_eq!(value(&output, "virt"), "none");
    assert_eq!(value(&output, "hypervisor"), "0");
    assert_eq!(value(&output, "root"), "/dev/sda1 ext4");
    assert_eq!(value(&output, "nic"), "e1000");
    assert_eq!(value(&output, "bound"), "2", "ata_piix and e1000 say so");
    assert_clean(&disk);
}

#[test]
fn the_same_disk_starts_with_its_own_kernel_under_both_device_sets() {
    for (machine, root, nic, virt) in [
        ("emulated", "/dev/sda1 ext4", "e1000", "none"),
        ("virtio", "/dev/vda1 ext4", "virtio_net", "kvm"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let disk = debian_disk(dir.path());
        let cmdline = "root=LABEL=debian ro console=ttyS0 quiet";
        let options = ["vm", "run", "--devices", machine, "--memory", "512M", "--cmdline", cmdline];
        let run = Sandbox::empty().isolab(&options).args(&["--disk", text(&disk), "--net", "tap"]);
        let run = run.arg("--kernel");
        let run = run.arg(cached("images/debian-disk/vmlinuz")).arg("--initrd");
        let run = run.arg(cached("images/debian-disk/initrd.img"));
        let output = log_in_and_power_off(run.start(Stdio::piped())).stdout;
        assert_eq!(value(&output, "virt"), virt, "{machine}");
        assert_eq!(value(&output, "hypervisor"), if machine == "virtio" { "1" } else { "0" });
        assert_eq!((value(&output, "root"), value(&output, "nic")), (root, nic));
        assert_clean(&disk);
    }
}
