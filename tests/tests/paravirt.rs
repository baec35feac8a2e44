//! The virtio machine, device by device: needs a host with a working KVM, see `scripts/kvm-host`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use isolab_tests::cached;
use isolab_tests::devices::{VIRTIO, VIRTIO_MODULES, disk, start_of, stock_initramfs, text, value};
use isolab_tests::guests::{Initramfs, QUIET, boot, boot_slim};
use nix::sys::signal::Signal;

const MIB: usize = 1 << 20;

#[test]
fn the_root_file_system_can_be_a_virtio_disk() {
    VIRTIO.root_file_system();
}

#[test]
fn what_a_guest_writes_is_on_the_disk_in_every_cache_mode_and_engine() {
    VIRTIO.cache_modes_and_engines();
}

#[test]
fn a_killed_machine_loses_nothing_that_was_synced() {
    VIRTIO.synced_data_survives_a_kill();
}

#[test]
fn a_full_host_disk_is_an_io_error_in_the_guest_and_no_more() {
    VIRTIO.full_host_disk();
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

#[test]
fn a_network_carries_streams_both_ways_also_with_several_queues() {
    VIRTIO.network(0, "");
    let done = VIRTIO.network(1, ",queues=2,mac=02:00:00:00:00:07");
    assert_eq!(value(&done.stdout, "mac"), "02:00:00:00:00:07");
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
    let script = "
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
         head -c 24 <&3 >/dev/null && echo button && poweroff -f";
    let initramfs = stock_initramfs(&VIRTIO_MODULES, script);
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
