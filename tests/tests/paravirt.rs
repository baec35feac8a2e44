//! The virtio machine, device by device: needs a host with a working KVM, see `scripts/kvm-host`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use isolab_tests::devices::{
    VIRTIO, VIRTIO_MMIO, VIRTIO_MODULES, disk, sha256, start_of, stock_initramfs, text, tool, value,
};
use isolab_tests::guests::{Initramfs, QUIET, boot, boot_slim, enter_programs, programs_disk};
use isolab_tests::{Done, cached};
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
fn fio_verifies_every_cache_mode_and_engine_from_two_processors() {
    VIRTIO.fio_verifies();
}

#[test]
fn discarded_and_zeroed_blocks_read_as_zeroes_and_are_given_back_to_the_host() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tools = format!("{},readonly", text(&programs_disk(dir.path(), &["/usr/sbin/blkdiscard"])));
    let enter = enter_programs("/dev/vd");
    let script = format!(
        "{enter}
         for disk in vdb vdc; do
             chroot /mnt /usr/sbin/blkdiscard -o 1M -l 2M /dev/$disk && echo discarded
             chroot /mnt /usr/sbin/blkdiscard -z -o 5M -l 1M /dev/$disk && echo zeroed
             echo largest-$disk=$(cat /sys/block/$disk/queue/write_zeroes_max_bytes)
         done
         poweroff -f"
    );
    let engines = ["sync", "io_uring"];
    let paths = engines.map(|engine| dir.path().join(engine));
    let mut options = vec![tools];
    for (path, engine) in paths.iter().zip(engines) {
        fs::write(path, vec![0xa5; 8 * MIB]).unwrap();
        options.push(format!("{},engine={engine}", text(path)));
    }
    let options: Vec<&str> = options.iter().flat_map(|disk| ["--disk", disk]).collect();
    let output = boot_slim(&script, &options).0.finish().success();
    let count = |word| output.matches(word).count();
    assert_eq!((count("discarded"), count("zeroed")), (2, 2), "{output}");
    // Otherwise the kernel writes the zeroes by itself.
    for disk in ["vdb", "vdc"] {
        assert_ne!(value(&output, &format!("largest-{disk}")), "0");
    }
    for (path, engine) in paths.iter().zip(engines) {
        let content = fs::read(path).unwrap();
        for (number, piece) in content.chunks(MIB).enumerate() {
            let expected = if matches!(number, 1 | 2 | 5) { 0 } else { 0xa5 };
            assert!(piece.iter().all(|byte| *byte == expected), "{engine}: MiB {number}");
        }
        let allocated = fs::metadata(path).unwrap().blocks() * 512;
        assert!(allocated <= 6 << 20, "{engine}: {allocated} bytes of 8 MiB are still allocated");
    }
}

#[test]
fn four_processors_and_memory_around_the_hole() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "disk.img", 32 << 20);
    let script = "
        echo cpus=$(nproc)
        echo memory=$(grep MemTotal /proc/meminfo | tr -dc 0-9)
        echo ids=$(grep '^apicid' /proc/cpuinfo | tr -dc '0-9\\n' | tr '\\n' ,)
        echo packages=$(grep 'physical id' /proc/cpuinfo | sort -u | wc -l)
        echo ranges=$(grep -c 'System RAM' /proc/iomem)
        # The zone Normal is what lies above 4 GiB; the disk's DMA reaches there, too.
        free() { awk '/zone *Normal/ { here = 1 } here && /nr_free_pages/ { print $2; exit }' /proc/zoneinfo; }
        mount -t tmpfs -o size=64m tmpfs /mnt; before=$(free)
        dd if=/dev/urandom of=/mnt/f bs=1M count=32 2>/dev/null
        echo taken=$((before - $(free)))
        echo data=$(sha256sum </mnt/f | cut -d ' ' -f 1)
        dd if=/mnt/f of=/dev/vda bs=1M oflag=direct 2>/dev/null
        poweroff -f";
    let options = ["--cpus", "4", "--memory", "4G", "--disk", text(&path)];
    let output = boot_slim(script, &options).0.finish().success();
    assert_eq!(value(&output, "cpus"), "4");
    assert_eq!(value(&output, "ids"), "0,1,2,3,");
    assert_eq!(value(&output, "packages"), "1");
    let kib: u64 = value(&output, "memory").parse().unwrap();
    assert!((3900 << 10..4 << 20).contains(&kib), "{output}");
    let ranges: u32 = value(&output, "ranges").parse().unwrap();
    assert!(ranges >= 3, "below 640 KiB, below the hole, above 4 GiB: {output}");
    let pages: i64 = value(&output, "taken").parse().unwrap();
    assert!(pages > 7000, "of 32 MiB, so many pages are above 4 GiB: {output}");
    assert_eq!(sha256(&start_of(&path, 32 * MIB)), value(&output, "data"));
}

#[test]
fn a_network_carries_streams_both_ways_also_with_several_queues() {
    let one = VIRTIO.network(0, ",vhost=off,queues=1");
    assert!(frames(&one) > 10, "{}", one.stderr);
    let done = VIRTIO.network(1, ",vhost=off,mac=02:00:00:00:00:07");
    assert_eq!(value(&done.stdout, "mac"), "02:00:00:00:00:07");
    assert!(done.stderr.contains("virtio-net queue 3"), "a pair for each vCPU: {}", done.stderr);
}

/// The host of this test has vhost-net, which nobody has to ask for.
#[test]
fn the_host_kernel_carries_the_network_by_vhost_unless_there_is_a_rate() {
    for (number, options) in [(2, ""), (3, ",vhost=on,queues=1,poll=50")] {
        let done = VIRTIO.network(number, options);
        // The control queue is ours.
        assert!(frames(&done) < 5, "{options}: {}", done.stderr);
    }
    let limited = VIRTIO.network(4, ",pps=100000");
    assert!(frames(&limited) > 10, "{}", limited.stderr);
}

/// Frames that passed through the monitor, by what --stats prints.
fn frames(done: &Done) -> u64 {
    let lines = done.stderr.lines().filter(|line| line.contains("virtio-net queue "));
    let requests = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
    lines.map(|line| requests(line).expect("a number of requests")).sum()
}

#[test]
fn disks_and_networks_work_over_mmio_without_a_pci_bus() {
    VIRTIO_MMIO.root_file_system();
    VIRTIO_MMIO.cache_modes_and_engines();
    VIRTIO_MMIO.network(5, ",vhost=off");
    let script = "
        echo drivers=$(ls /sys/bus/platform/drivers/virtio-mmio | grep -c LNRO0005)
        echo pci=$(ls /sys/bus/pci/devices | wc -l)
        echo random=$(head -c 8 /dev/hwrng | wc -c)
        poweroff -f";
    let options = ["--virtio-transport", "mmio", "--rng", "--balloon", "0"];
    let output = boot_slim(script, &options).0.finish().success();
    assert_eq!(["drivers", "pci", "random"].map(|name| value(&output, name)), ["2", "0", "8"]);
}

#[test]
fn a_network_has_the_mtu_it_was_given_and_a_disk_is_no_faster_than_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let limited = format!("{},bps=1048576", text(&disk(dir.path(), "limited.img", 8 << 20)));
    let script = "
        echo mtu=$(cat /sys/class/net/eth0/mtu)
        now() { awk '{ print int($1 * 100) }' /proc/uptime; }
        before=$(now); dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null
        echo centiseconds=$(($(now) - before))
        poweroff -f";
    let options = ["--net", "tap=test6,mtu=1400", "--disk", &limited];
    let output = boot_slim(script, &options).0.finish().success();
    assert_eq!(value(&output, "mtu"), "1400");
    // 4 MiB, of which the bucket may hold one at the start.
    let centiseconds: u32 = value(&output, "centiseconds").parse().unwrap();
    assert!(centiseconds >= 290, "{output}");
}

/// The kernel takes a machine apart behind its end, which nobody has to know.
#[test]
fn what_a_machine_had_for_itself_the_next_one_has_at_once() {
    let dir = tempfile::tempdir().unwrap();
    tool("ip", &["tuntap", "add", "again0", "mode", "tap"]);
    let path = disk(dir.path(), "disk.img", 1 << 20);
    let vsock = format!("cid=3,path={}", text(&dir.path().join("vsock")));
    let api = dir.path().join("api");
    let options = ["--net", "tap=again0", "--disk", text(&path), "--vsock", &vsock];
    let options = [&options[..], &["--api-socket", text(&api)]].concat();
    for _ in 0..4 {
        boot_slim("poweroff -f", &options).0.finish().success();
    }
    tool("ip", &["link", "delete", "again0"]);
}

/// Reads and writes a disk's configuration space: `config`, the file in sysfs, is the caller's.
const CONFIGURATION: &str = "
    read_byte() { od -An -tu1 -j $1 -N 1 $config | tr -dc 0-9; }
    write_dword() { printf \"$2\" | dd of=$config bs=4 seek=$(($1 / 4)) conv=notrunc 2>/dev/null; }
    echo identity=$(echo $(od -An -tx2 -N 4 $config))
    # The window onto the BAR (virtio 1.2, 4.1.4.9) is the last capability. Through it, the capacity.
    at=$(read_byte 52)
    while next=$(read_byte $((at + 1))); [ $next != 0 ]; do at=$next; done
    echo kind=$(read_byte $((at + 3)))
    write_dword $((at + 8)) '\\0\\040\\0\\0'
    for length in 4 0 4 0; do
        write_dword $((at + 12)) \"\\\\$length\\\\0\\\\0\\\\0\"
        echo through-$length=$(echo $(od -An -tu4 -j $((at + 16)) -N 4 $config))
    done
    # The interrupt line is the guest's to write (with it the latencies, which stay as they are).
    write_dword 60 '\\125\\1\\0\\0'
    echo line=$(read_byte 60)";

#[test]
fn configuration_space_is_read_where_it_is_and_by_ports_where_no_table_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "disk.img", 1 << 20);
    for (segment, words, end) in
        [("0001", QUIET, "poweroff -f"), ("0000", &*format!("{QUIET} acpi=off"), "reboot -f")]
    {
        let script =
            format!("config=/sys/bus/pci/devices/{segment}:00:01.0/config\n{CONFIGURATION}\n{end}");
        let kernel = cached("kernels/slim/vmlinux");
        let options = ["--cmdline", words, "--stats", "--disk", text(&path)];
        let done = boot(&kernel, Initramfs::with_script(&script), &options).0.finish();
        assert!(done.status.success(), "{done:?}");
        assert_eq!(value(&done.stdout, "identity"), "1af4 1042");
        assert_eq!(value(&done.stdout, "kind"), "5");
        assert_eq!(value(&done.stdout, "through-4"), "2048");
        assert_eq!(value(&done.stdout, "line"), "85");
        let exits = |device: &str, from: &str| -> u32 {
            let reads = done.stderr.lines().filter_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let [count, _, "read", at, name] = fields[..] else { return None };
                (name == device && at.starts_with(from)).then(|| count.parse::<u32>().unwrap())
            });
            reads.sum()
        };
        let (bridge, disk) = (exits("pci-ecam", "0xe0000"), exits("pci-ecam", "0xe0008"));
        let ports = exits("pci-config", "0xcf");
        if segment == "0000" {
            assert!((bridge, disk) == (0, 0) && ports > 100, "{}", done.stderr);
        } else {
            // Only while the window is open do reads have to exit.
            assert!(bridge == 0 && (1..200).contains(&disk) && ports < 10, "{}", done.stderr);
            assert!(exits("pci-ecam", "0xe0008000") <= 2, "{}", done.stderr);
        }
    }
}

#[test]
fn a_reboot_can_start_the_machine_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), "disk.img", 1 << 20);
    let script = "
        seen=$(head -c 5 /dev/vda | tr -d '\\0'); echo boot after: $seen
        [ \"$seen\" = first ] && poweroff -f
        echo first >/first; dd if=/first of=/dev/vda conv=fsync 2>/dev/null; reboot -f";
    let options = ["--disk", text(&path), "--on-reboot", "reset"];
    let output = boot_slim(script, &options).0.finish().success();
    let boots: Vec<_> = output.lines().filter_map(|line| line.split_once("boot after:")).collect();
    let seen: Vec<_> = boots.iter().map(|(_, seen)| seen.trim()).collect();
    assert_eq!(seen, ["", "first"], "{output}");
}

#[test]
fn the_terminal_can_be_a_virtio_console() {
    let script = "
        echo active=$(cat /sys/class/tty/console/active); echo ready
        read line; echo got=$line; poweroff -f";
    let kernel = cached("kernels/slim/vmlinux");
    let options = ["--console", "virtio"];
    let (run, _dir) = boot(&kernel, Initramfs::with_script(script), &options);
    let mut running = run.start(Stdio::piped());
    running.wait_for("ready");
    running.feed(b"from the host\n");
    let output = running.finish().success();
    assert_eq!(value(&output, "active"), "hvc0");
    assert_eq!(value(&output, "got"), "from the host");
}

#[test]
fn random_numbers_and_a_balloon() {
    let script = "
        echo random=$(head -c 16 /dev/hwrng | wc -c)
        free() { grep MemFree /proc/meminfo | tr -dc 0-9; }
        until [ $(free) -lt 131072 ]; do sleep 0.1; done
        echo free=$(free); poweroff -f";
    let (run, _dir) = boot_slim(script, &["--rng", "--balloon", "128M", "--memory", "256M"]);
    let output = run.finish().success();
    assert_eq!(value(&output, "random"), "16");
    let kib: u64 = value(&output, "free").parse().unwrap();
    assert!(kib < 128 << 10, "the balloon took 128 MiB of 256: {output}");
}

/// The libraries of this program, which runs in guests as well.
fn libraries() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
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
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept, bind, connect, listen,
        socket,
    };
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
         echo cpus=$(nproc)
         echo net=$(cat /sys/class/net/eth0/address)
         echo random=$(head -c 4 /dev/hwrng | wc -c)
         echo msi=$(grep -c 'PCI-MSI.*virtio' /proc/interrupts)
         dmesg | grep -E 'ACPI (BIOS )?(Error|Warning)|BIOS Error|\\[Firmware Bug|nobody cared|XSAVE consistency'
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
    let mut running = run.args(&["--cpus", "2", "--rng", "--balloon", "0"]).start(Stdio::null());
    running.wait_for("pressable");
    running.signal(Signal::SIGTERM);
    let output = running.finish().success();
    for complaint in ["Error", "Bug", "nobody cared", "XSAVE"] {
        assert!(!output.contains(complaint), "{output}");
    }
    assert_eq!(value(&output, "cpus"), "2");
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
    assert_eq!(running.finish().code(), Some(137));
}
