//! Containers of root's with a user namespace (`--userns auto`): ids of their own, and networks where they are root.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::lifecycle::until;
use crate::networked::{Host, until_answered};
use crate::text;

/// Blocks of 65536 ids begin with these.
const BLOCKS: [&str; 2] = ["1000000000", "1000065536"];

/// Puts the calling thread, and what it starts, where /etc/subuid and /etc/subgid have so many ids for containers.
fn set_apart(file: &Path, first: &str, count: u32) {
    fs::write(file, format!("containers:{first}:{count}\n")).unwrap();
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).unwrap();
    for ranges in ["/etc/subuid", "/etc/subgid"] {
        mount(Some(file), ranges, none, MsFlags::MS_BIND, none).unwrap();
    }
}

thread_local! {
    /// Whether this thread's containers have ids of their own.
    static HAS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// The arguments of `isolab`; what makes an instance is told to give it ids of its own, where the thread's are to have them.
pub(crate) fn with_options<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let (command, further) = arguments.split_at(arguments.len().min(1));
    let is_new = matches!(command, ["run" | "create"]) && HAS_OWN.get();
    let own: &[&str] = if is_new { &["--userns", "auto"] } else { &[] };
    [command, own, further].concat()
}

/// A test of a level with containers that have ids of their own. The calling thread has to be the test's alone.
pub fn with_own_ids(test: fn(&str)) {
    /// Tests run beside each other.
    static RANGES: AtomicU32 = AtomicU32::new(1_100_000_000);
    let count = 64 * 65536;
    let first = RANGES.fetch_add(count, Ordering::Relaxed);
    let file = tempfile::NamedTempFile::new().unwrap();
    set_apart(file.path(), &first.to_string(), count);
    HAS_OWN.set(true);
    test("container");
    HAS_OWN.set(false);
}

/// What it is, from inside and from the host, with a network and without.
pub fn a_life() {
    let host = Host::new();
    let ranges = host.file("ranges");
    set_apart(&ranges, BLOCKS[0], 2 * 65536);
    host.isolab(&["network", "create", "front"]).success();
    let auto = ["--userns", "auto"];
    let run = |options: &[&str], script: &str| {
        host.isolab(&[&["run"], &auto[..], options, &["busybox", "sh", "-c", script]].concat())
    };
    // Files are inside what they are in the image, whoever writes them and wherever.
    let script = "cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g / /bin/busybox /etc/hosts; touch /made; \
                  stat -c %u /made; echo out >/dev/stdout; cat /proc/sys/kernel/hostname; echo x >/data/file";
    let seen = run(&["--hostname", "named", "-v", "kept:/data"], script).success();
    let owners = "0:0\n".repeat(3);
    assert_eq!(seen, format!(" 0 {} 65536\n{owners}0\nout\nnamed\n", BLOCKS[0]));
    let seen = run(&["-u", "7:8", "-v", "kept:/data"], "id -u; id -g; stat -c %u /data/file");
    assert_eq!(seen.success(), "7\n8\n0\n");
    // The volume's file is the host's root's, as without a user namespace.
    let plain = ["run", "-v", "kept:/data", "busybox", "stat", "-c", "%u", "/data/file"];
    assert_eq!(host.isolab(&plain).success(), "0\n");

    // On a network: root there may use its ports and send what takes a capability.
    let on_front = [&auto[..], &["--network", "front"]].concat();
    host.serve("container", "web", &[&on_front[..], &["-p", "8080:80"]].concat());
    until_answered("http://127.0.0.1:8080/", "web");
    let ask = |options: &[&str], url: &str| host.ask_from("container", options, url);
    assert_eq!(ask(&["--network", "front"], "http://web/"), "web");
    // Another one beside it has other ids; with these, all are taken.
    let script =
        "ping -c 1 -W 5 web >/dev/null && echo pinged; read all </proc/self/uid_map; echo $all";
    let seen = run(&["--network", "front"], script).success();
    assert_eq!(seen, format!("pinged\n0 {} 65536\n", BLOCKS[1]));
    let served =
        host.isolab(&["exec", "web", "sh", "-c", "id -u; touch /www/new && stat -c %u /www/new"]);
    assert_eq!(served.success(), "0\n0\n");
    let second = [&["run", "-d", "--name", "second"], &auto[..], &["busybox", "sleep", "1000"]];
    host.isolab(&second.concat()).success();
    run(&[], "true").fails_with(125, &["all 2 blocks", "/etc/subuid"]);
    host.isolab(&["rm", "--force", "second"]).success();
    until("a block is free again", || run(&[], "true").code() == Some(0));
    // It starts again, with what it wrote.
    host.isolab(&["stop", "web"]).success();
    host.isolab(&["start", "web"]).success();
    until_answered("http://127.0.0.1:8080/", "web");
    let kept = host.isolab(&["exec", "web", "stat", "-c", "%u", "/www/new"]);
    assert_eq!(kept.success(), "0\n");
    host.isolab(&["rm", "--force", "web"]).success();
    assert_eq!(host.left(), [""; 0]);

    fs::write(&ranges, "").unwrap();
    run(&[], "true").fails_with(125, &["no range", text(Path::new("/etc/subuid"))]);
    let kept = host.isolab(&["run", "--userns", "keep-id", "busybox", "true"]);
    kept.fails_with(125, &["ordinary users"]);
}
