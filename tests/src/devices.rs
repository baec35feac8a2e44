//! Disks and networks, used in the same way on the virtio and on the emulated machine.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use crate::guests::{Initramfs, QUIET, boot_slim, enter_programs, programs_disk};
use crate::{Done, Run, Running, Sandbox, cached};

const MIB: usize = 1 << 20;

/// One of the two machines.
#[derive(Clone, Copy)]
pub struct Device {
    /// The options of `isolab vm run` that make it.
    pub options: &'static [&'static str],
    /// How the guest's disks are named, without the last letter.
    pub disk: &'static str,
    /// How many of them there can be in one boot.
    pub most_disks: usize,
    /// The network controller's name in the statistics.
    pub nic: &'static str,
}

/// `--devices virtio`.
pub const VIRTIO: Device =
    Device { options: &["--devices", "virtio"], disk: "/dev/vd", most_disks: 8, nic: "virtio-net" };
/// The same without a PCI bus.
pub const VIRTIO_MMIO: Device =
    Device { options: &["--devices", "virtio", "--virtio-transport", "mmio"], ..VIRTIO };
/// `--devices emulated`.
pub const EMULATED: Device =
    Device { options: &["--devices", "emulated"], disk: "/dev/sd", most_disks: 4, nic: "e1000" };

/// Runs a program of the host that has to succeed.
#[track_caller]
pub fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A path of ours as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A raw disk of this size, sparse.
pub fn disk(folder: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = folder.join(name);
    let file = File::create(&path).expect("the folder can be written");
    file.set_len(bytes).expect("sparse files are possible");
    path
}

/// The first `length` bytes of a file.
pub fn start_of(path: &Path, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    File::open(path).and_then(|mut file| file.read_exact(&mut content)).expect("it is that long");
    content
}

/// As `sha256sum` prints it.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of `NAME=VALUE` in a guest's output.
#[track_caller]
pub fn value<'a>(output: &'a str, name: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name}= in:\n{output}"))
}

impl Device {
    fn boot(self, script: &str, options: &[&str]) -> (Run, tempfile::TempDir) {
        let (run, dir) = boot_slim(script, options);
        (run.args(self.options), dir)
    }

    /// An ext4 file system as the root, mounted by the kernel, written to, and clean afterwards.
    pub fn root_file_system(self) {
        let dir = tempfile::tempdir().expect("a folder");
        let tree = dir.path().join("tree");
        for folder in ["bin", "proc", "dev", "sys"] {
            fs::create_dir_all(tree.join(folder)).expect("our own folder");
        }
        fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("busybox-static is installed");
        let root = disk(dir.path(), "root.img", 16 << 20);
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-d", text(&tree), text(&root)]);
        let script = "/bin/busybox mount -t proc proc /proc; /bin/busybox grep ' / ' /proc/mounts; \
                      echo kept >/kept; /bin/busybox mount -o remount,ro /; \
                      exec /bin/busybox poweroff -f";
        let root_device = format!("root={}a rw init=/bin/busybox", self.disk);
        let cmdline = format!("{QUIET} {root_device} -- sh -c \"{script}\"");
        let run = Sandbox::empty().isolab(&["vm", "run", "--cmdline", &cmdline]);
        let run = run.args(self.options).arg("--kernel");
        let output = run.arg(cached("kernels/slim/vmlinux")).arg("--disk").arg(&root).finish();
        let output = output.success();
        assert!(output.contains("/dev/root / ext4 rw"), "{output}");
        tool("e2fsck", &["-fn", text(&root)]);
        let shown = Command::new("debugfs").args(["-R", "cat kept", text(&root)]).output();
        assert_eq!(shown.expect("debugfs runs").stdout, b"kept\n");
    }

    /// Every cache mode with every engine: the guest reads back what it wrote, and so does the
    /// host.
    pub fn cache_modes_and_engines(self) {
        // O_DIRECT needs a real file system, which /tmp often is not.
        let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let options = |(mode, engine): &(&str, &str)| format!("cache={mode},engine={engine}");
        let combinations: Vec<String> = cache_modes_and_engines().iter().map(options).collect();
        for combinations in combinations.chunks(self.most_disks) {
            self.written_is_read(dir.path(), combinations);
        }
    }

    fn written_is_read(self, folder: &Path, combinations: &[String]) {
        let disks: Vec<PathBuf> = (0..combinations.len())
            .map(|number| disk(folder, &format!("{number}.img"), 8 << 20))
            .collect();
        let letters = &["a", "b", "c", "d", "e", "f"][..combinations.len()];
        let mut options = Vec::new();
        for (path, combination) in disks.iter().zip(combinations) {
            options.extend(["--disk".to_owned(), format!("{},{combination}", text(path))]);
        }
        let script = format!(
            "dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null
             echo data=$(sha256sum </data | cut -d ' ' -f 1)
             for disk in {}; do
                 dd if=/data of={disk}$disk bs=64k conv=fsync 2>/dev/null || echo failed
                 # Small pieces, aligned to nothing but sectors.
                 dd if=/data of={disk}$disk bs=512 seek=8200 count=77 conv=fsync 2>/dev/null
                 echo 3 >/proc/sys/vm/drop_caches
                 echo $disk=$(head -c 4194304 {disk}$disk | sha256sum | cut -d ' ' -f 1)
             done
             poweroff -f",
            letters.join(" "),
            disk = self.disk
        );
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (run, _dir) = self.boot(&script, &options);
        let output = run.finish().success();
        let data = value(&output, "data");
        for ((letter, path), combination) in letters.iter().zip(&disks).zip(combinations) {
            assert_eq!(value(&output, letter), data, "read back, {combination}");
            let content = fs::read(path).expect("our own disk");
            assert_eq!(sha256(&content[..4 * MIB]), data, "on the host, {combination}");
            let small = &content[8200 * 512..][..77 * 512];
            assert!(small == &content[..77 * 512], "small writes, {combination}");
        }
    }

    /// Every cache mode with every engine, under random reads and writes from two processors:
    /// fio's checksums tell whether each block reads as it was written.
    pub fn fio_verifies(self) {
        // O_DIRECT needs a real file system, which /tmp often is not.
        let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let programs = programs_disk(dir.path(), &["/usr/bin/fio"]);
        // One disk has the programs.
        for combinations in cache_modes_and_engines().chunks(self.most_disks - 1) {
            let mut options = vec![format!("{},readonly", text(&programs))];
            for (mode, engine) in combinations {
                let path = disk(dir.path(), &format!("{mode}-{engine}"), 4 << 20);
                options.push(format!("{},cache={mode},engine={engine}", text(&path)));
            }
            let script = format!(
                "{}
                 jobs=; for disk in $others; do jobs=\"$jobs --name=$disk --filename=$disk\"; done
                 chroot /mnt /usr/bin/fio --thread --ioengine=libaio --iodepth=16 --direct=1 \
                     --rw=randrw --bsrange=512-32k --size=4M --fsync=16 \
                     --verify=crc32c --verify_fatal=1 --verify_state_save=0 $jobs >/tmp/report 2>&1
                 echo fio=$?; cat /tmp/report; poweroff -f",
                enter_programs(self.disk)
            );
            let options: Vec<&str> = options.iter().flat_map(|disk| ["--disk", disk]).collect();
            let (run, _dir) = self.boot(&script, &options);
            let output = run.args(&["--cpus", "2"]).finish().success();
            assert_eq!(value(&output, "fio"), "0", "{output}");
            let ran = output.matches("err= 0").count();
            assert_eq!(ran, combinations.len(), "every job ran: {output}");
        }
    }

    /// kill -9 of the monitor while the guest writes: what was synced before is on the disk.
    pub fn synced_data_survives_a_kill(self) {
        let dir = tempfile::tempdir().expect("a folder");
        for engine in ["sync", "io_uring"] {
            let path = disk(dir.path(), engine, 8 << 20);
            let script = format!(
                "dd if=/dev/urandom of=/data bs=1M count=2 2>/dev/null
                 dd if=/data of={0}a bs=64k conv=fsync 2>/dev/null && echo synced
                 echo data=$(sha256sum </data | cut -d ' ' -f 1)
                 echo done; while :; do dd if=/data of={0}a bs=64k seek=40 2>/dev/null; done",
                self.disk
            );
            let option = format!("{},engine={engine}", text(&path));
            let (run, _dir) = self.boot(&script, &["--disk", &option]);
            let mut running = run.start(Stdio::null());
            running.wait_for("done");
            running.signal(Signal::SIGKILL);
            let done = running.finish();
            assert!(done.stdout.contains("synced"), "{done:?}");
            assert_eq!(sha256(&start_of(&path, 2 * MIB)), value(&done.stdout, "data"), "{engine}");
        }
    }

    /// ENOSPC on the host is an I/O error in the guest, and the machine lives on.
    pub fn full_host_disk(self) {
        let dir = tempfile::tempdir().expect("a folder");
        tool("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", text(dir.path())]);
        let path = disk(dir.path(), "big.img", 64 << 20);
        let script = format!(
            "dd if=/dev/zero of={0}a bs=1M count=16 conv=fsync 2>/dev/null || echo refused
             dd if={0}a of=/dev/null bs=64k count=1 2>/dev/null && echo lives on
             poweroff -f",
            self.disk
        );
        let (run, _dir) = self.boot(&script, &["--disk", text(&path)]);
        let done = run.finish();
        tool("umount", &[text(dir.path())]);
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert!(done.stdout.contains("refused") && done.stdout.contains("lives on"), "{done:?}");
    }

    /// A tap: ping, then a stream of 4 MiB in each direction. `options` are those of `--net`.
    pub fn network(self, number: u8, options: &str) -> Done {
        let script = network_script(number);
        let net = format!("tap=test{number}{options}");
        let (run, _dir) = self.boot(&script, &["--cpus", "2", "--net", &net, "--stats"]);
        let done = exchange_streams(run.start(Stdio::piped()), number);
        assert!(done.stderr.contains(self.nic), "{}", done.stderr);
        done
    }
}

/// Every cache mode with every engine.
fn cache_modes_and_engines() -> Vec<(&'static str, &'static str)> {
    let modes = ["writeback", "writethrough", "none"].into_iter();
    modes.flat_map(|mode| ["sync", "io_uring"].map(|engine| (mode, engine))).collect()
}

/// What the guest of [`exchange_streams`] runs; its interface is eth0.
pub fn network_script(number: u8) -> String {
    format!(
        "echo waiting; read line
         ip addr add 10.77.{number}.2/24 dev eth0; ip link set eth0 up
         until ping -c 1 -W 1 10.77.{number}.1 >/dev/null; do :; done
         echo mac=$(cat /sys/class/net/eth0/address)
         dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null
         echo data=$(sha256sum </data | cut -d ' ' -f 1)
         nc 10.77.{number}.1 7000 </data
         nc 10.77.{number}.1 7000 >/answer </dev/null
         echo answer=$(sha256sum </answer | cut -d ' ' -f 1)
         poweroff -f"
    )
}

/// Serves the guest that runs [`network_script`] with the tap `test{number}`, to its end.
pub fn exchange_streams(mut running: Running, number: u8) -> Done {
    running.wait_for("waiting");
    let address = format!("10.77.{number}.1");
    tool("ip", &["address", "add", &format!("{address}/24"), "dev", &format!("test{number}")]);
    tool("ip", &["link", "set", &format!("test{number}"), "up"]);
    running.feed(b"\n");
    let listener = TcpListener::bind((address, 7000)).expect("the address is the tap's");
    let answer: Vec<u8> = (0..4 * MIB as u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    let expected = sha256(&answer);
    let server = thread::spawn(move || {
        let (mut upload, _) = listener.accept().expect("the guest connects");
        let mut received = vec![0; 4 * MIB];
        upload.read_exact(&mut received).expect("the guest sends 4 MiB");
        drop(upload);
        let (mut download, _) = listener.accept().expect("the guest connects again");
        download.write_all(&answer).expect("the guest reads");
        received
    });
    let done = running.finish();
    assert!(done.status.success(), "{done:?}");
    let received = server.join().expect("the server saw both connections");
    assert_eq!(sha256(&received), value(&done.stdout, "data"), "from the guest");
    assert_eq!(value(&done.stdout, "answer"), expected, "to the guest");
    done
}

/// A CD-ROM image with one file, `hello`, of this content.
pub fn iso(folder: &Path, content: &[u8]) -> PathBuf {
    let tree = folder.join("iso-tree");
    fs::create_dir(&tree).expect("our own folder");
    fs::write(tree.join("hello"), content).expect("our own folder");
    let path = folder.join("cd.iso");
    tool("genisoimage", &["-quiet", "-R", "-o", text(&path), text(&tree)]);
    path
}

/// The stock kernel's modules for the emulated machine's devices.
pub const EMULATED_MODULES: [&str; 6] = ["ata_piix", "sd_mod", "sr_mod", "isofs", "ext4", "e1000"];
/// The stock kernel's modules for the virtio machine's devices.
pub const VIRTIO_MODULES: [&str; 7] =
    ["virtio_pci", "virtio_blk", "virtio_net", "virtio-rng", "virtio_balloon", "evdev", "button"];

/// An initramfs for the stock kernel with `modules`, loaded before `script` runs.
pub fn stock_initramfs(modules: &[&str], script: &str) -> Initramfs {
    let load = "for module in /modules/*; do insmod $module; done";
    Initramfs::with_script(&format!("{load}\n{script}")).modules("stock", modules)
}
