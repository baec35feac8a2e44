//! `--systemd-cgroup`, with a systemd of the test's own: PID 1 of a pid namespace, with dbus-daemon, in a cgroup that is
//! the top of its tree. Needs root, and Debian's packages systemd, dbus and podman.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tempfile::TempDir;

use support::podman::Podman;
use support::{Answer, Bundle, runtime_path};

const UNITS: [(&str, &str); 3] = [
    (
        "isolab-test.target",
        "[Unit]\nRequires=dbus.socket dbus.service\nAfter=dbus.socket dbus.service\n",
    ),
    (
        "dbus.socket",
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    ),
    (
        "dbus.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n[Service]\nType=notify\n\
         ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile\n",
    ),
];

/// Makes a shell systemd, in a cgroup of the test's in every hierarchy, where nobody else is: version 2 has processes
/// in leaves only, and systemd leaves the top for its own. What systemd would change of the
/// host's is its own: /etc, /run, and the folder that version 1's hierarchies are mounted in, which it makes read-only
/// and adds to.
const START: &str = r#"
name=$1
tops=/sys/fs/cgroup
[ -e $tops/cgroup.controllers ] || tops=$(echo /sys/fs/cgroup/*)
for top in $tops; do
    mkdir $top/$name
    for file in cpuset.cpus cpuset.mems; do
        [ -e $top/cgroup.controllers ] || [ ! -e $top/$file ] || cat $top/$file >$top/$name/$file
    done
done
exec unshare --mount --pid --fork --kill-child --uts --net --ipc bash -euc '
name=$1 tops=$2
for top in $tops; do
    echo 0 >$top/$name/cgroup.procs
done
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir /run/etc /run/cgroup
cp -a /etc/. /run/etc
mount --bind /run/etc /etc
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t tmpfs tmpfs /run/cgroup
    for top in /sys/fs/cgroup/*; do
        mkdir /run/cgroup/${top##*/}
        mount --bind $top /run/cgroup/${top##*/}
    done
    mount -o remount,ro /run/cgroup
    mount --rbind /run/cgroup /sys/fs/cgroup
fi
export container=isolab SYSTEMD_UNIT_PATH=$0:/run/systemd/system.control:/run/systemd/transient
exec /lib/systemd/systemd --system --unit=isolab-test.target --log-target=console --show-status=no' $0 $name "$tops"
"#;

/// A running systemd. Dropped, it is gone with all of its cgroups.
struct Systemd {
    units: TempDir,
    unshare: Child,
    pid: u32,
    cgroup: String,
}

impl Systemd {
    fn start() -> Self {
        let units = tempfile::tempdir().unwrap();
        for (name, text) in UNITS {
            fs::write(units.path().join(name), text).unwrap();
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("isolab-systemd-{}-{count}", std::process::id());
        let mut command = Command::new("bash");
        command.args(["-euc", START]).arg(units.path()).arg(&cgroup).stdin(Stdio::null());
        let unshare = command.spawn().unwrap();
        let mut systemd = Systemd { units, unshare, pid: 0, cgroup };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(600);
        while !systemd.is_up() {
            assert!(systemd.unshare.try_wait().unwrap().is_none(), "systemd has ended");
            assert!(std::time::Instant::now() < deadline, "systemd never came up");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        systemd
    }

    fn is_up(&mut self) -> bool {
        let children = format!("/proc/{0}/task/{0}/children", self.unshare.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        self.pid = children.trim().parse().unwrap_or(0);
        self.pid != 0 && self.run("busctl", &["status", "org.freedesktop.systemd1"]).0
    }

    /// The words that bring what follows into its namespaces.
    fn entering(&self) -> Vec<OsString> {
        let pid = self.pid.to_string();
        let words = ["--target", &pid, "--mount", "--pid", "--net", "--uts", "--ipc"];
        ["nsenter"].into_iter().chain(words).map(OsString::from).collect()
    }

    /// A command in its namespaces.
    fn command(&self, program: &Path) -> Command {
        let words = self.entering();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> (bool, String) {
        let output = self.command(Path::new(program)).args(words).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The runtime, with its answer in files of the bundle.
    fn oci(&self, bundle: &Bundle, words: &[&str]) -> Answer {
        let [output, errors] = ["output", "errors"].map(|name| bundle.path(name));
        let mut command = self.command(&runtime_path());
        command.arg("--root").arg(bundle.path("state")).args(words).stdin(Stdio::null());
        command
            .stdout(fs::File::create(&output).unwrap())
            .stderr(fs::File::create(&errors).unwrap());
        let code = command.status().unwrap().code().unwrap();
        let read = |path| fs::read_to_string(path).unwrap();
        Answer { code, output: read(&output), errors: read(&errors) }
    }

    fn property(&self, unit: &str, name: &str) -> String {
        self.run("systemctl", &["show", unit, "--value", "-p", name]).1.trim().to_owned()
    }

    /// The cgroups below its own that end with this.
    fn cgroups(&self, end: &str) -> Vec<PathBuf> {
        let mut find = Command::new("find");
        let found = find
            .args(["/sys/fs/cgroup", "-path", &format!("*/{}/*{end}", self.cgroup)])
            .output()
            .unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(PathBuf::from).collect()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // With unshare goes its child, which is init, and with that everything.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let script = "for i in $(seq 500); do \
                      find /sys/fs/cgroup -depth -type d -path \"*/$0*\" -exec rmdir {} + 2>/dev/null && break; sleep 0.02; done";
        let _ = Command::new("sh").args(["-c", script, &self.cgroup]).status();
        let _ = &self.units;
    }
}

fn is_version_2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn a_container_is_a_scope_of_its_slice_with_its_limits() {
    let systemd = Systemd::start();
    let bundle = Bundle::new(
        "busybox cat /proc/self/cgroup >/tmp/cgroup; echo >/tmp/ready; exec sleep 1000",
    );
    bundle.configure(|spec| {
        spec["linux"]["cgroupsPath"] = json!("tests-oci.slice:libpod:one");
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864}, "pids": {"limit": 50},
            "cpu": {"quota": 50_000, "period": 100_000, "shares": 512},
        });
    });
    let (folder, id) = (bundle.dir.path().to_str().unwrap(), bundle.id.as_str());
    let scope = "libpod-one.scope";
    systemd.oci(&bundle, &["--systemd-cgroup", "create", "--bundle", folder, id]).fine();
    systemd.oci(&bundle, &["start", id]).fine();
    bundle.wait_for("it runs", || bundle.says("ready"));

    let memory = if is_version_2() { "MemoryMax" } else { "MemoryLimit" };
    let weight = if is_version_2() { ("CPUWeight", "20") } else { ("CPUShares", "512") };
    for (name, value) in [
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("Slice", "tests-oci.slice"),
        ("Transient", "yes"),
        (memory, "67108864"),
        ("TasksMax", "50"),
        ("CPUQuotaPerSecUSec", "500ms"),
        weight,
    ] {
        assert_eq!(systemd.property(scope, name), value, "{name}");
    }
    let path = format!("/{}/tests.slice/tests-oci.slice/{scope}", systemd.cgroup);
    assert_eq!(systemd.property(scope, "ControlGroup"), path);
    // The container is there, in each hierarchy that has the cgroup, and sees it as the top.
    let cgroups = systemd.cgroups(scope);
    assert!(!cgroups.is_empty());
    let table = systemd.oci(&bundle, &["ps", "--format", "json", id]).fine();
    assert_eq!(table.trim().split(',').count(), 1, "{table}");
    for cgroup in &cgroups {
        let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        assert_eq!(procs.lines().count(), 1, "{}", cgroup.display());
        assert!(cgroup.ends_with(path.trim_start_matches('/')), "{}", cgroup.display());
    }
    let inside = fs::read_to_string(bundle.path("rootfs/tmp/cgroup")).unwrap();
    assert!(inside.contains("0::/\n"), "{inside}");

    // A change reaches the control file, and systemd, which would undo it otherwise.
    systemd.oci(&bundle, &["update", "--memory", "128m", "--pids-limit", "60", id]).fine();
    assert_eq!(systemd.property(scope, memory), "134217728");
    systemd.run("systemctl", &["daemon-reload"]);
    let file = if is_version_2() { "memory.max" } else { "memory.limit_in_bytes" };
    let limits: Vec<String> =
        cgroups.iter().filter_map(|one| fs::read_to_string(one.join(file)).ok()).collect();
    assert_eq!(limits, ["134217728\n"]);
    assert_eq!(systemd.oci(&bundle, &["exec", id, "sh", "-c", "exit 4"]).code, 4);
    systemd.oci(&bundle, &["pause", id]).fine();
    systemd.oci(&bundle, &["resume", id]).fine();

    // A name that is taken is told of, and its owner is undisturbed.
    let second = Bundle::new("true");
    second.configure(|spec| spec["linux"]["cgroupsPath"] = json!("tests-oci.slice:libpod:one"));
    let folder = second.dir.path().to_str().unwrap();
    let taken =
        systemd.oci(&second, &["--systemd-cgroup", "create", "--bundle", folder, &second.id]);
    taken.fails(1, "UnitExists");
    assert_eq!(systemd.property(scope, "ActiveState"), "active");

    systemd.oci(&bundle, &["delete", "--force", id]).fine();
    assert_eq!(systemd.property(scope, "LoadState"), "not-found");
    assert_eq!(systemd.cgroups(scope), Vec::<PathBuf>::new());
}

#[test]
fn a_run_leaves_no_unit_whatever_becomes_of_it() {
    let systemd = Systemd::start();
    // Of a limit of one process, the container's is the one.
    for (script, pids, code) in [("exit 6", 1, 6), ("exit 0", -1, 0)] {
        let bundle = Bundle::new(script);
        bundle.configure(|spec| spec["linux"]["resources"] = json!({"pids": {"limit": pids}}));
        let folder = bundle.dir.path().to_str().unwrap();
        let ran =
            systemd.oci(&bundle, &["--systemd-cgroup", "run", "--bundle", folder, &bundle.id]);
        assert_eq!((ran.code, ran.errors.as_str()), (code, ""));
        let unit = format!("isolab-{}.scope", bundle.id);
        assert_eq!(systemd.property(&unit, "LoadState"), "not-found");
        assert_eq!(systemd.cgroups(&unit), Vec::<PathBuf>::new());
    }
    for (field, value, words) in [
        ("mounts", json!([{"destination": "/x", "type": "nothing", "source": "none"}]), "/x"),
        ("hooks", json!({"prestart": [{"path": "/bin/false"}]}), "hooks.prestart[0]"),
    ] {
        let bundle = Bundle::new("true");
        bundle.configure(|spec| spec[field] = value);
        let folder = bundle.dir.path().to_str().unwrap();
        systemd
            .oci(&bundle, &["--systemd-cgroup", "create", "--bundle", folder, &bundle.id])
            .fails(1, words);
        let unit = format!("isolab-{}.scope", bundle.id);
        assert_eq!(systemd.property(&unit, "LoadState"), "not-found");
        assert_eq!(systemd.cgroups(&unit), Vec::<PathBuf>::new());
    }
}

#[test]
fn without_systemd_and_with_another_path_it_says_so() {
    let bundle = Bundle::new("true");
    let folder = bundle.dir.path().to_str().unwrap();
    let words = ["--systemd-cgroup", "create", "--bundle", folder, &bundle.id];
    let mut command = bundle.command(&words);
    let output = command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/absent").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("--cgroup-manager cgroupfs") && errors.contains("/absent"), "{errors}");
    bundle.configure(|spec| spec["linux"]["cgroupsPath"] = json!("/machine/one"));
    bundle.oci(&words).fails(1, "slice:prefix:name");
    bundle.is_gone();
}

#[test]
fn podman_has_its_cgroups_made_by_systemd() {
    let systemd = Systemd::start();
    let folder = tempfile::tempdir().unwrap();
    let podman = Podman::made(folder, systemd.entering(), "systemd", runtime_path());
    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let options = ["-d", "--name", "one", "--memory", "64m", "--pids-limit", "50"];
    let (code, id, errors) = podman.create(&options, &["sh", "-c", script]);
    assert_eq!(code, 0, "{errors}");
    let scope = format!("libpod-{}.scope", id.trim());
    let memory = if is_version_2() { "MemoryMax" } else { "MemoryLimit" };
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", "machine.slice"),
        ("Delegate", "yes"),
        (memory, "67108864"),
        ("TasksMax", "50"),
    ] {
        assert_eq!(systemd.property(&scope, name), value, "{name}");
    }
    let cgroups = systemd.cgroups(&scope);
    let members = |cgroup: &PathBuf| fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    assert!(!cgroups.is_empty() && cgroups.iter().all(|one| !members(one).is_empty()));
    let (code, output, errors) = podman.run(&["exec", "one", "sh", "-c", "echo inside; exit 4"]);
    assert_eq!((code, output.as_str()), (4, "inside\n"), "{errors}");
    podman.says(&["pause", "one"]);
    assert_eq!(podman.tells("one", "{{.State.Status}}"), "paused");
    podman.says(&["unpause", "one"]);
    assert!(podman.says(&["stats", "--no-stream", "one"]).contains("one"));
    podman.says(&["stop", "--time", "60", "one"]);
    assert_eq!(podman.tells("one", "{{.State.ExitCode}}"), "3");
    podman.says(&["rm", "one"]);
    assert_eq!(systemd.property(&scope, "LoadState"), "not-found");
    assert_eq!(systemd.cgroups(&scope), Vec::<PathBuf>::new());
    let (code, output, errors) =
        podman.create(&["--rm", "--pids-limit", "1"], &["sh", "-c", "exit 6"]);
    assert_eq!(code, 6, "{output}{errors}");
}
