//! Kernels of every kind, and the ways in which a machine ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use isolab_tests::devices::tool;
use isolab_tests::guests::{Initramfs, boot, boot_slim, tiny_kernel};
use isolab_tests::{Done, Sandbox, cached};
use nix::sys::signal::Signal;

#[track_caller]
fn refused(done: Done, words: &[&str]) {
    assert!(done.code().is_some_and(|code| code != 0), "{done:?}");
    for word in words {
        assert!(done.stderr.contains(word), "no `{word}` in: {}", done.stderr);
    }
    assert!(!done.stderr.contains("panicked"), "{done:?}");
}

#[test]
fn bad_kernels_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let run = |path: &Path, options: &[&str]| boot(path, Initramfs::default(), options).0.finish();
    let bzimage = fs::read(cached("kernels/slim/bzImage")).unwrap();
    refused(run(&kernel("cut", &bzimage[..bzimage.len() / 2]), &[]), &["cut", "truncated"]);
    refused(run(&kernel("head", &bzimage[..0x100]), &[]), &["head"]);
    let mut elf = fs::read(cached("kernels/slim/vmlinux")).unwrap();
    refused(run(&kernel("cut-elf", &elf[..elf.len() / 2]), &[]), &["cut-elf", "truncated"]);
    elf[18..20].copy_from_slice(&183u16.to_le_bytes()); // EM_AARCH64
    refused(run(&kernel("arm", &elf), &[]), &["arm", "machine"]);
    refused(run(&kernel("text", b"no kernel at all"), &[]), &["text"]);
    refused(run(Path::new("/no/such/kernel"), &[]), &["/no/such/kernel"]);
    let slim = cached("kernels/slim/vmlinux");
    refused(run(&slim, &["--memory", "16M"]), &["memory", "kernel"]);
    refused(run(&slim, &["--memory", "1M"]), &["memory", "16 MiB"]);
    refused(run(&slim, &["--memory", "900T"]), &["memory"]);
    refused(run(&slim, &["--cpus", "0"]), &["cpus"]);
    refused(run(&slim, &["--cpus", "100000"]), &["cpus"]);
}

/// 32-bit code that prints the string whose address is at EBX + `field`, and resets the machine.
fn print_string_at(field: u8) -> Vec<u8> {
    let mut code = vec![0x8b, 0x73, field]; // mov esi, [ebx + field]
    code.extend([0xba, 0xf8, 0x03, 0, 0]); // mov edx, COM1
    code.extend([0xac, 0x84, 0xc0, 0x74, 3, 0xee, 0xeb, 0xf8]); // lodsb until it is zero; out dx, al
    code.extend([0x66, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, 0xf4]); // out 0xcf9, 6; hlt
    code
}

#[test]
fn kernels_of_other_protocols_find_what_they_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let pvh = tiny_kernel(dir.path(), &print_string_at(24), true);
    let multiboot = dir.path().join("multiboot");
    let flags = 1u32 << 16 | 3;
    let checksum = 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let header = [0x1bad_b002, flags, checksum, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    // The kernel goes on only with multiboot's magic number: cmp eax, 0x2badb002; jne to itself.
    image.extend([0x3d, 0x02, 0xb0, 0xad, 0x2b, 0x75, 0xfe]);
    image.extend(print_string_at(16));
    fs::write(&multiboot, image).unwrap();
    for machine in ["virtio", "emulated"] {
        for (kernel, told) in [(&pvh, "told by isolab"), (&multiboot, "multiboot told by isolab")] {
            let options = ["--cmdline", "told by isolab", "--devices", machine];
            let (run, _dir) = boot(kernel, Initramfs::default(), &options);
            let output = run.finish().success();
            assert!(output.ends_with(told), "{machine}: {output}");
        }
    }
}

#[test]
fn memtest86_is_started_directly_in_both_widths() {
    for name in ["x64", "ia32"] {
        let kernel = format!("/boot/memtest86+{name}.bin");
        let options = ["vm", "run", "--memory", "48M", "--cmdline", "console=ttyS0,115200"];
        let run = Sandbox::empty().isolab(&options).args(&["--kernel", &kernel]);
        let mut running = run.start(Stdio::null());
        running.wait_for("Memtest86+");
        running.wait_for("Pass");
        running.signal(Signal::SIGINT);
        assert_eq!(running.finish().code(), Some(137));
    }
}

/// Nothing of it waits for another process, and the machine has not been made yet.
#[test]
fn what_is_no_file_and_what_is_no_raw_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    tool("mkfifo", &[&path("fifo")]);
    fs::write(path("qcow2"), [b"QFI\xfb".as_slice(), &[0; 8192]].concat()).unwrap();
    fs::write(path("raw"), vec![0; 1 << 20]).unwrap();
    for (option, value, words) in [
        ("--kernel", path("fifo"), ["fifo", "a pipe"]),
        ("--disk", path("fifo"), ["fifo", "neither a regular file"]),
        ("--disk", path("qcow2"), ["qcow2 image", "qemu-img convert"]),
    ] {
        let slim = cached("kernels/slim/vmlinux");
        let run = Sandbox::empty().isolab(&["vm", "run", option, &value]);
        let run = if option == "--kernel" { run } else { run.arg("--kernel").arg(slim) };
        run.finish().fails_with(125, &words);
    }
    let (run, _dir) = boot_slim("", &["--initrd", &path("fifo")]);
    run.finish().fails_with(125, &["fifo", "a pipe"]);

    let device = Command::new("losetup").args(["-r", "-f", "--show", &path("raw")]).output();
    let device = String::from_utf8(device.expect("losetup runs").stdout).unwrap();
    let device = device.trim_end();
    let (run, _dir) = boot_slim("", &["--disk", device]);
    run.finish().fails_with(125, &[device, "'readonly'"]);
    let disk = format!("{device},readonly");
    let script = "echo ro=$(cat /sys/block/vda/ro); poweroff -f";
    let (run, _dir) = boot_slim(script, &["--disk", &disk]);
    assert!(run.finish().success().contains("ro=1"));
    tool("losetup", &["-d", device]);
}

#[test]
fn a_triple_fault_resets_and_is_told_with_the_registers() {
    let dir = tempfile::tempdir().unwrap();
    // lidt of an empty table, then int3: no handler, no double fault handler.
    let code = [0x0f, 0x01, 0x1c, 0x25, 0x00, 0x00, 0x00, 0x00, 0xcc];
    let (run, _dir) = boot(&tiny_kernel(dir.path(), &code, false), Initramfs::default(), &[]);
    run.finish().fails_with(0, &["reset itself", "triple fault", "RIP", "CR3"]);
}

/// Whatever way Linux knows of, a reboot is a reset, and a panic is told from one.
#[test]
fn every_way_to_reboot_resets_and_a_panic_is_told_apart() {
    for (ends, word) in [("k", None), ("t", Some("triple fault")), ("b", None), ("a", None)] {
        for machine in ["virtio", "emulated"] {
            let cmdline = format!("console=ttyS0 quiet panic=-1 reboot={ends}");
            let options = ["--devices", machine, "--cmdline", &cmdline];
            let init = Initramfs::with_script("echo going; reboot -f");
            let (run, _dir) = boot(&cached("kernels/slim/vmlinux"), init, &options);
            let done = run.finish();
            assert_eq!(done.code(), Some(0), "reboot={ends}, {machine}: {done:?}");
            assert!(done.stdout.contains("going"), "{done:?}");
            assert_eq!(done.stderr.contains("triple fault"), word.is_some(), "{done:?}");
        }
    }
    let (run, _dir) = boot_slim("exit 3", &[]);
    run.finish().fails_with(134, &["kernel panicked", "Attempted to kill init"]);
}
