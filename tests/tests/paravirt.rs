//! The virtio machine, device by device: needs a host with a working KVM, see `scripts/kvm-host`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use isolab_tests::guests::{Initramfs, LOAD_MODULES, QUIET, boot, boot_slim};
use isolab_tests::{Running, cached};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A raw disk of this size, sparse.
fn disk(folder: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first `length` bytes of a disk.
fn start_of(path: &Path, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    File::open(path).unwrap().read_exact(&mut content).unwrap();
    content
}

/// The value of `NAME=VALUE` in a guest's output.
#[track_caller]
fn value<'a>(output: &'a str, name: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name}= in:\n{output}"))
}

const MIB: usize = 1 << 20;

#[test]
fn the_root_file_system_can_be_a_virtio_disk() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    for folder in ["bin", "proc", "dev", "sys"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    let root = disk(dir.path(), "root.img", 16 << 20);
    tool("mke2fs", &["-q", "-F", "-t", "ext4", "-d", text(&tree), text(&root)]);
    let script = "/bin/busybox mount -t proc proc /proc; /bin/busybox grep ' / ' /proc/mounts; \
                  echo kept >/kept; /bin/busybox mount -o remount,ro /; exec /bin/busybox poweroff -f";
    let cmdline = format!("{QUIET} root=/dev/vda rw init=/bin/busybox -- sh -c \"{script}\"");
    let run = isolab_tests::Sandbox::empty().isolab(&["vm", "run", "--cmdline", &cmdline]);
    let run = run.arg("--kernel").arg(cached("kernels/slim/vmlinux")).arg("--disk").arg(&root);
    let output = run.finish().success();
    assert!(output.contains("/dev/root / ext4 rw"), "{output}");
    tool("e2fsck", &["-fn", text(&root)]);
    let shown = Command::new("debugfs").args(["-R", "cat kept", text(&root)]).output().unwrap();
    assert_eq!(shown.stdout, b"kept\n");
}

#[test]
fn what_a_guest_writes_is_on_the_disk_in_every_cache_mode_and_engine() {
    // O_DIRECT needs a real file system, which /tmp often is not.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let modes = ["writeback", "writethrough", "none"];
    let engines = ["sync", "io_uring"];
    let combinations: Vec<_> =
        modes.iter().flat_map(|mode| engines.iter().map(move |engine| (mode, engine))).collect();
    let mut options = Vec::new();
    let mut disks = Vec::new();
    for (number, (mode, engine)) in combinations.iter().enumerate() {
        let path = disk(dir.path(), &format!("{number}.img"), 8 << 20);
        options.push("--disk".to_owned());
        options.push(format!("{},cache={mode},engine={engine}", text(&path)));
        disks.push(path);
    }
    let script = "
        dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null
        echo data=$(sha256sum </data | cut -d ' ' -f 1)
        for disk in a b c d e f; do
            dd if=/data of=/dev/vd$disk bs=64k conv=fsync 2>/dev/null || echo failed
            # Small and unaligned to anything but sectors.
            dd if=/data of=/dev/vd$disk bs=512 seek=8200 count=77 conv=fsync 2>/dev/null
            echo 3 >/proc/sys/vm/drop_caches
            echo $disk=$(head -c 4194304 /dev/vd$disk | sha256sum | cut -d ' ' -f 1)
        done
        poweroff -f";
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let (run, _dir) = boot_slim(script, &options);
    let output = run.finish().success();
    let data = value(&output, "data");
    for ((name, path), combination) in
        ["a", "b", "c", "d", "e", "f"].iter().zip(&disks).zip(&combinations)
    {
        assert_eq!(value(&output, name), data, "read back, {combination:?}");
        let content = fs::read(path).unwrap();
        assert_eq!(sha256(&content[..4 * MIB]), data, "on the host, {combination:?}");
        let small = &content[8200 * 512..][..77 * 512];
        assert_eq!(small, &content[..77 * 512], "small writes, {combination:?}");
    }
}

#[test]
fn a_killed_machine_loses_nothing_that_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ["sync", "io_uring"] {
        let path = disk(dir.path(), engine, 8 << 20);
        let script = "
            dd if=/dev/urandom of=/data bs=1M count=2 2>/dev/null
            dd if=/data of=/dev/vda bs=64k conv=fsync 2>/dev/null && echo synced
            echo data=$(sha256sum </data | cut -d ' ' -f 1)
            echo done; while :; do dd if=/data of=/dev/vda bs=64k seek=40 2>/dev/null; done";
        let (run, _dir) =
            boot_slim(script, &["--disk", &format!("{},engine={engine}", text(&path))]);
        let mut running = run.start(Stdio::null());
        running.wait_for("done");
        running.signal(Signal::SIGKILL);
        let done = running.finish();
        assert!(done.stdout.contains("synced"), "{done:?}");
        assert_eq!(sha256(&start_of(&path, 2 * MIB)), value(&done.stdout, "data"), "{engine}");
    }
}

#[test]
fn a_full_host_disk_is_an_io_error_in_the_guest_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", text(dir.path())]);
    let path = disk(dir.path(), "big.img", 64 << 20);
    let script = "
        dd if=/dev/zero of=/dev/vda bs=1M count=16 conv=fsync 2>/dev/null || echo refused
        dd if=/dev/vda of=/dev/null bs=64k count=1 2>/dev/null && echo lives on
        poweroff -f";
    let (run, _dir) = boot_slim(script, &["--disk", text(&path)]);
    let done = run.finish();
    tool("umount", &[text(dir.path())]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.stdout.contains("refused") && done.stdout.contains("lives on"), "{done:?}");
}

#[test]
fn a_read_only_disk_refuses_writes_and_several_guests_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "ro.img", 1 << 20);
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"content").unwrap();
    let script = "
        head -c 7 /dev/vda; echo; cat /sys/block/vda/ro
        dd if=/dev/zero of=/dev/vda count=1 2>/dev/null || echo refused
        poweroff -f";
    let option = format!("{},readonly", text(&path));
    let (run, _dir) = boot_slim(script, &["--disk", &option, "--disk", &option]);
    let output = run.finish().success();
    assert!(output.contains("content") && output.contains("refused"), "{output}");
    assert!(start_of(&path, 7) == b"content");
}

#[test]
fn four_processors_and_memory_around_the_hole() {
    let script = "
        echo cpus=$(nproc)
        echo memory=$(grep MemTotal /proc/meminfo | tr -dc 0-9)
        echo ids=$(grep '^apicid' /proc/cpuinfo | tr -dc '0-9\\n' | tr '\\n' ,)
        echo packages=$(grep 'physical id' /proc/cpuinfo | sort -u | wc -l)
        # Past the hole at 3 GiB: a file that does not fit below it.
        mount -t tmpfs -o size=64m tmpfs /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=32 2>/dev/null
        echo above=$(grep -c 'System RAM' /proc/iomem)
        poweroff -f";
    let (run, _dir) = boot_slim(script, &["--cpus", "4", "--memory", "3584M"]);
    let output = run.finish().success();
    assert_eq!(value(&output, "cpus"), "4");
    assert_eq!(value(&output, "ids"), "0,1,2,3,");
    assert_eq!(value(&output, "packages"), "1");
    let kib: u64 = value(&output, "memory").parse().unwrap();
    assert!((3400 << 10..3584 << 10).contains(&kib), "{output}");
    let ranges: u32 = value(&output, "above").parse().unwrap();
    assert!(ranges >= 3, "below 640 KiB, below the hole, above 4 GiB: {output}");
}

/// Takes as much from the first connection as it then sends on the second.
fn exchange(listener: TcpListener, answer: Vec<u8>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut upload, _) = listener.accept().unwrap();
        let mut received = vec![0; answer.len()];
        upload.read_exact(&mut received).unwrap();
        drop(upload);
        let (mut download, _) = listener.accept().unwrap();
        download.write_all(&answer).unwrap();
        received
    })
}

/// Gives the tap of a running machine an address.
fn address_of_tap(running: &mut Running, name: &str, address: &str) {
    running.wait_for("waiting");
    tool("ip", &["address", "add", address, "dev", name]);
    tool("ip", &["link", "set", name, "up"]);
    running.feed(b"\n");
}

#[test]
fn a_network_carries_streams_both_ways_with_offloads_and_several_queues() {
    for (number, options) in ["mtu=1500", "queues=2,mac=02:00:00:00:00:07"].iter().enumerate() {
        let (tap, subnet) = (format!("test{number}"), format!("10.77.{number}"));
        let script = format!(
            "echo waiting; read line
             ip addr add {subnet}.2/24 dev eth0; ip link set eth0 up
             for try in $(seq 50); do ping -c 1 -W 1 {subnet}.1 >/dev/null && break; done
             echo mac=$(cat /sys/class/net/eth0/address)
             dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null
             echo data=$(sha256sum </data | cut -d ' ' -f 1)
             nc {subnet}.1 7000 </data
             nc {subnet}.1 7000 >/answer </dev/null
             echo answer=$(sha256sum </answer | cut -d ' ' -f 1)
             poweroff -f"
        );
        let (run, _dir) = boot_slim(
            &script,
            &["--cpus", "2", "--net", &format!("tap={tap},{options}"), "--stats"],
        );
        let mut running = run.start(Stdio::piped());
        address_of_tap(&mut running, &tap, &format!("{subnet}.1/24"));
        let listener = TcpListener::bind(format!("{subnet}.1:7000")).unwrap();
        let answer: Vec<u8> = (0..4 * MIB as u32).map(|i| (i ^ (i >> 9)) as u8).collect();
        let expected = sha256(&answer);
        let server = exchange(listener, answer);
        let done = running.finish();
        assert!(done.status.success(), "{done:?}");
        let received = server.join().unwrap();
        assert_eq!(sha256(&received), value(&done.stdout, "data"), "{options}");
        assert_eq!(value(&done.stdout, "answer"), expected, "{options}");
        if options.contains("mac=") {
            assert_eq!(value(&done.stdout, "mac"), "02:00:00:00:00:07");
        }
        // Segmentation offload: far fewer frames than 8 MiB in 1500-byte pieces.
        assert!(done.stderr.contains("virtio-net"), "{}", done.stderr);
    }
}

#[test]
fn random_numbers_and_a_balloon() {
    let script = "
        echo random=$(head -c 16 /dev/hwrng | wc -c)
        for try in $(seq 100); do
            free=$(grep MemFree /proc/meminfo | tr -dc 0-9)
            [ $free -lt 131072 ] && break; sleep 0.1
        done
        echo free=$free; poweroff -f";
    let (run, _dir) = boot_slim(script, &["--rng", "--balloon", "128M", "--memory", "256M"]);
    let output = run.finish().success();
    assert_eq!(value(&output, "random"), "16");
    let kib: u64 = value(&output, "free").parse().unwrap();
    assert!(kib < 128 << 10, "the balloon took 128 MiB of 256: {output}");
}

/// The libraries of this program, which runs in guests as well.
fn libraries() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<String> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    files
}

const VSOCK_PORT: u32 = 1234;

/// What the guest of [`streams_over_vsock_both_ways`] runs.
#[test]
#[ignore = "run in a guest by streams_over_vsock_both_ways"]
fn guest_speaks_vsock() {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept, bind, connect, listen,
        socket,
    };
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let stream =
        || socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None).unwrap();
    // From the host: send back what comes.
    let listener = stream();
    bind(listener.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, VSOCK_PORT)).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    println!("listening");
    // SAFETY: a descriptor that accept(2) made just now and nobody else has.
    let accepted = unsafe { OwnedFd::from_raw_fd(accept(listener.as_raw_fd()).unwrap()) };
    let mut peer = File::from(accepted);
    let mut received = vec![0; MIB];
    peer.read_exact(&mut received).unwrap();
    peer.write_all(&received).unwrap();
    drop(peer);
    // To the host.
    let caller = stream();
    connect(caller.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, VSOCK_PORT)).unwrap();
    let mut peer = File::from(caller);
    peer.write_all(b"from the guest\n").unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    println!("answer={answer}");
}

#[test]
fn streams_over_vsock_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let program = fs::read("/proc/self/exe").unwrap();
    let script = "/bin/test guest_speaks_vsock --exact --ignored --nocapture; poweroff -f";
    let mut initramfs = Initramfs::with_script(script).file("bin/test", &program);
    let mut folders: Vec<String> = Vec::new();
    for library in libraries() {
        // The loader's own path is in the program, as /lib64.
        let name = Path::new(&library).file_name().unwrap().to_str().unwrap().to_owned();
        let folder = if name.starts_with("ld-") { "lib64" } else { "lib" };
        if !folders.iter().any(|made| made == folder) {
            initramfs = initramfs.folder(folder);
            folders.push(folder.to_owned());
        }
        initramfs = initramfs.file(&format!("{folder}/{name}"), &fs::read(&library).unwrap());
    }
    let socket = dir.path().join("vsock");
    // The convention of Firecracker and Cloud Hypervisor: guest connections arrive at PATH_PORT.
    let inbound = std::os::unix::net::UnixListener::bind(format!("{}_{VSOCK_PORT}", text(&socket)));
    let inbound = inbound.unwrap();
    let option = format!("cid=3,path={}", text(&socket));
    let (run, _dir) =
        boot(&cached("kernels/slim/vmlinux"), initramfs, &["--cmdline", QUIET, "--vsock", &option]);
    let mut running = run.start(Stdio::null());
    running.wait_for("listening");

    let mut outbound = UnixStream::connect(&socket).unwrap();
    writeln!(outbound, "CONNECT {VSOCK_PORT}").unwrap();
    let mut reply = [0; 3];
    outbound.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"OK ");
    while reply[0] != b'\n' {
        outbound.read_exact(&mut reply[..1]).unwrap();
    }
    let sent: Vec<u8> = (0..MIB as u32).map(|i| (i * 7 + (i >> 11)) as u8).collect();
    let writer = thread::spawn({
        let (mut outbound, sent) = (outbound.try_clone().unwrap(), sent.clone());
        move || outbound.write_all(&sent).unwrap()
    });
    let mut echoed = vec![0; MIB];
    outbound.read_exact(&mut echoed).unwrap();
    writer.join().unwrap();
    assert!(echoed == sent, "a MiB came back changed");

    let (mut peer, _) = inbound.accept().unwrap();
    let mut line = [0; 15];
    peer.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"from the guest\n");
    peer.write_all(b"from the host").unwrap();
    drop(peer);
    let output = running.finish().success();
    assert!(output.contains("answer=from the host"), "{output}");
}

#[test]
fn the_stock_kernel_s_own_drivers_find_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "disk.img", 8 << 20);
    let modules = [
        "virtio_ring",
        "virtio",
        "virtio_pci_modern_dev",
        "virtio_pci_legacy_dev",
        "virtio_pci",
        "virtio_blk",
        "failover",
        "net_failover",
        "virtio_net",
        "virtio-rng",
        "virtio_balloon",
        "evdev",
        "button",
    ];
    let script = format!(
        "{LOAD_MODULES}
         dd if=/dev/urandom of=/data bs=64k count=4 2>/dev/null
         dd if=/data of=/dev/vda conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches
         [ -b /dev/vda ] && head -c 262144 /dev/vda | cmp - /data && echo disk=same
         echo net=$(cat /sys/class/net/eth0/address)
         echo random=$(head -c 4 /dev/hwrng | wc -c)
         echo msi=$(grep -c 'PCI-MSI.*virtio' /proc/interrupts)
         dmesg | grep -E 'ACPI (BIOS )?(Error|Warning)|BIOS Error|\\[Firmware Bug|nobody cared'
         echo clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
         # The power button arrives as an input event, at who listens already.
         exec 3</dev/input/event0; echo pressable
         head -c 24 <&3 >/dev/null && echo button && poweroff -f"
    );
    let initramfs = Initramfs::with_script(&script).modules("stock", &modules);
    let (run, _dir) = boot(
        &cached("kernels/stock/vmlinuz"),
        initramfs,
        &["--cmdline", QUIET, "--disk", text(&path), "--net", "tap,mac=02:00:00:00:00:09"],
    );
    let mut running = run.args(&["--rng", "--balloon", "0"]).start(Stdio::null());
    running.wait_for("pressable");
    running.signal(Signal::SIGTERM);
    let output = running.finish().success();
    assert!(!output.contains("Error") && !output.contains("Bug"), "{output}");
    assert_eq!(value(&output, "disk"), "same");
    assert_eq!(value(&output, "net"), "02:00:00:00:00:09");
    assert_eq!(value(&output, "random"), "4");
    assert_eq!(value(&output, "clock"), "kvm-clock");
    assert!(value(&output, "msi").parse::<u32>().unwrap() >= 4, "{output}");
    assert!(output.contains("button"), "{output}");
}

#[test]
fn a_guest_that_ignores_the_power_button_is_stopped_after_the_grace_period() {
    let script = "echo deaf; while :; do sleep 1; done";
    let (run, _dir) = boot_slim(script, &["--grace", "1"]);
    let mut running = run.start(Stdio::null());
    running.wait_for("deaf");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().code(), Some(0));
}
