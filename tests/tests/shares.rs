//! Folders of the host in guests, by virtio-fs: needs a host with a working KVM, see `scripts/kvm-host`.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use isolab_file_semantics::{EXPECTATIONS, check};
use isolab_tests::devices::{stock_initramfs, text, tool, value};
use isolab_tests::guests::{Initramfs, QUIET, boot, boot_slim};
use isolab_tests::{TIME_LIMIT, cached};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

/// Of the folders in the guest of [`a_share_is_a_file_system_like_others`].
const CACHES: [&str; 3] = ["none", "auto", "always"];

/// What that guest runs.
#[test]
#[ignore = "run in a guest by a_share_is_a_file_system_like_others"]
fn guest_works_in_its_shares() {
    for cache in CACHES {
        let expectations = EXPECTATIONS.into_iter().filter(|(name, _)| match *name {
            // What is not kept cannot be mapped to be shared: Linux can from 6.6 on.
            "shared mappings" => cache != "none",
            // Minutes on the emulated host; `volumes_machines` has 10,000 of them on a share.
            "many files" => false,
            _ => true,
        });
        check(&Path::new("/mnt").join(cache), &expectations.collect::<Vec<_>>());
    }
    guest_cannot_do_what_is_the_host_s(Path::new("/mnt/auto"));
    guest_fills_the_disk(Path::new("/mnt/small"));
    guest_shares_locks_with_the_host(Path::new("/mnt/auto"));
    println!("all is well");
}

fn guest_cannot_do_what_is_the_host_s(folder: &Path) {
    let device = nix::sys::stat::mknod(
        &folder.join("device"),
        nix::sys::stat::SFlag::S_IFBLK,
        nix::sys::stat::Mode::S_IRWXU,
        nix::sys::stat::makedev(1, 1),
    );
    assert_eq!(device, Err(Errno::EPERM));
    fs::write(folder.join("made by root"), "").unwrap();
    // As setcap(8) has it (VFS_CAP_REVISION_2): the guest's kernel looks at it before we do.
    let capability = [0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let refused = xattr::set(folder.join("made by root"), "security.capability", &capability);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    // What the host has outside: the link leads to the guest's own.
    assert_eq!(fs::read_to_string(folder.join("link")).unwrap(), "the guest's\n");
}

fn guest_fills_the_disk(folder: &Path) {
    let file = fs::File::create(folder.join("file")).unwrap();
    let block = [1; 64 << 10];
    let full = (0..).find_map(|number: u64| {
        let written = file.write_all_at(&block, number * block.len() as u64);
        written.and_then(|()| file.sync_all()).err()
    });
    assert_eq!(full.unwrap().raw_os_error(), Some(libc::ENOSPC));
    drop(file);
    fs::remove_file(folder.join("file")).unwrap();
    fs::write(folder.join("file"), block).unwrap();
}

/// A lock of a whole file.
fn whole(kind: libc::c_int) -> libc::flock {
    let (l_type, l_whence) = (kind as i16, libc::SEEK_SET as i16);
    libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 }
}

fn opened(path: &Path) -> fs::File {
    fs::File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn guest_shares_locks_with_the_host(folder: &Path) {
    let (ours, theirs) = (opened(&folder.join("ours")), opened(&folder.join("theirs")));
    fcntl(&ours, FcntlArg::F_SETLK(&whole(libc::F_WRLCK))).unwrap();
    let mut found = whole(libc::F_RDLCK);
    fcntl(&theirs, FcntlArg::F_GETLK(&mut found)).unwrap();
    assert_eq!((i32::from(found.l_type), found.l_pid), (libc::F_WRLCK, 0));
    let lock = whole(libc::F_RDLCK);
    assert_eq!(fcntl(&theirs, FcntlArg::F_SETLK(&lock)), Err(Errno::EAGAIN));
    // The host looks, and gives its own up.
    fs::write(folder.join("ready"), "").unwrap();
    fcntl(&theirs, FcntlArg::F_SETLKW(&lock)).unwrap();
}

#[test]
fn a_share_is_a_file_system_like_others() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("secret"), "the host's").unwrap();
    let script = "
        echo \"the guest's\" >/secret
        for tag in none auto always small ro; do mkdir /mnt/$tag; mount -t virtiofs $tag /mnt/$tag; done
        /bin/test guest_works_in_its_shares --exact --ignored --nocapture
        cat /mnt/ro/file; echo x 2>/dev/null >/mnt/ro/file || echo ro=refused
        adduser -D -H -u 1234 user 2>/dev/null; chmod 777 /mnt/auto
        su user -c 'umask 027; echo x >/mnt/auto/users; mkdir /mnt/auto/folder'
        umount /mnt/ro && echo unmounted; poweroff -f";
    let initramfs = Initramfs::with_script(script)
        .folder("etc")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\nuser:x:1234:1234::/:/bin/sh\n")
        .file("etc/group", b"root:x:0:\nuser:x:1234:\n")
        .file("bin/test", &fs::read("/proc/self/exe").unwrap());
    let folder = |name: &str| {
        let path = host.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let shares: Vec<String> = CACHES
        .into_iter()
        .map(|cache| format!("{},tag={cache},cache={cache}", text(&folder(cache))))
        .collect();
    std::os::unix::fs::symlink("/secret", host.path().join("auto/link")).unwrap();
    let (ro, small) = (folder("ro"), folder("small"));
    fs::write(ro.join("file"), "content\n").unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=1M", "none", text(&small)]);
    let (ro, small) =
        (format!("{},tag=ro,readonly", text(&ro)), format!("{},tag=small", text(&small)));
    let mut options = vec!["--cmdline", QUIET, "--cpus", "2", "--stats"];
    for share in shares.iter().chain([&ro, &small]) {
        options.extend(["--share", share]);
    }
    let set = |file: &fs::File| fcntl(file, FcntlArg::F_OFD_SETLK(&whole(libc::F_WRLCK)));
    let theirs = opened(&host.path().join("auto/theirs"));
    set(&theirs).unwrap();
    let (run, _dir) = boot(&cached("kernels/slim/vmlinux"), initramfs, &options);
    let run = run.start(Stdio::null());
    let deadline = Instant::now() + TIME_LIMIT;
    while !host.path().join("auto/ready").exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let seen = set(&opened(&host.path().join("auto/ours")));
    drop(theirs);
    let done = run.finish();
    assert_eq!(seen, Err(Errno::EAGAIN), "the guest's lock on the host: {done:?}");
    tool("umount", &[text(&host.path().join("small"))]);
    let statistics = done.stderr.clone();
    let output = done.success();
    assert!(output.contains("all is well") && output.contains("unmounted"), "{output}");
    assert!(output.contains("content") && value(&output, "ro") == "refused", "{output}");
    assert!(statistics.contains("virtio-fs"), "{statistics}");
    let of_root = fs::metadata(host.path().join("auto/made by root")).unwrap();
    assert_eq!((of_root.uid(), of_root.gid()), (0, 0));
    for (name, mode) in [("auto/users", 0o640), ("auto/folder", 0o750)] {
        let made = fs::metadata(host.path().join(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (1234, 1234), "{name}");
        assert_eq!(made.permissions().mode() & 0o7777, mode, "{name}");
    }
    assert_eq!(fs::read(host.path().join("ro/file")).unwrap(), b"content\n");
    assert_eq!(fs::read(host.path().join("secret")).unwrap(), b"the host's");
}

#[test]
fn what_was_synced_survives_the_machine() {
    let host = tempfile::tempdir().unwrap();
    let script = "
        mount -t virtiofs data /mnt
        dd if=/dev/urandom of=/mnt/file bs=64k count=32 conv=fsync 2>/dev/null
        echo sum=$(sha256sum </mnt/file)
        sync; echo synced; sleep 1000";
    let share = format!("{},tag=data", text(host.path()));
    let options = ["--share", &share, "--virtio-transport", "mmio"];
    let (run, _dir) = boot_slim(script, &options);
    let mut running = run.start(Stdio::null());
    running.wait_for("synced");
    running.signal(Signal::SIGKILL);
    let output = running.finish().stdout;
    let file = fs::read(host.path().join("file")).unwrap();
    assert_eq!(file.len(), 2 << 20);
    assert!(value(&output, "sum").starts_with(&isolab_tests::devices::sha256(&file)), "{output}");
}

#[test]
fn the_stock_kernel_s_own_driver_mounts_a_share() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "of the host\n").unwrap();
    let script = "
        mount -t virtiofs data /mnt && cat /mnt/file
        mkdir /mnt/a && echo of the guest >/mnt/a/b && mv /mnt/a /mnt/c; poweroff -f";
    let share = format!("{},tag=data", text(host.path()));
    let initramfs = stock_initramfs(&["virtio_pci", "virtiofs"], script);
    let options = ["--cmdline", QUIET, "--share", &share];
    let (run, _dir) = boot(&cached("kernels/stock/vmlinuz"), initramfs, &options);
    let output = run.finish().success();
    assert!(output.contains("of the host"), "{output}");
    assert_eq!(fs::read(host.path().join("c/b")).unwrap(), b"of the guest\n");
}
