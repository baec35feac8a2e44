//! Images that attack: what they reach of the host, and what outlives the command that runs them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use isolab_tests::{Run, Sandbox, TIME_LIMIT, cgroups_named, text, tool};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The payload of CVE-2019-5736: as the loader of whatever `/proc/self/exe` is, or as a program, it opens the
/// executable that it was started from, gives up dying with its parent, leaves the session and waits until it may write
/// what it opened: when the last process of that executable has ended. A descendant does the same.
const PAYLOAD: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void) {
    sigset_t all;
    char path[64];
    int fd = open("/proc/self/exe", O_RDONLY);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    fork();
    prctl(PR_SET_PDEATHSIG, 0);
    setsid();
    prctl(PR_SET_NAME, "payload");
    puts("the payload runs");
    fflush(stdout);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    /* Not for ever: where the attack works, the test is to say so. */
    for (int i = 0; i < 3000; i++) {
        int writable = open(path, O_WRONLY);
        if (writable >= 0 && write(writable, "overwritten", 11) > 0)
            _exit(0);
        usleep(10000);
    }
    return 0;
}
"#;

/// A store with the attacker's image in it, and a copy of isolab that an attack may spoil.
struct Attack {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    /// The copy, and what it is one of.
    copy: PathBuf,
    original: PathBuf,
}

impl Attack {
    /// On a copy of `executable` called `name`, which is no longer than the kernel keeps of it.
    fn new(executable: &str, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (original, copy) = (isolab_tests::executable(executable), folder.path().join(name));
        // By cp: see `install_isolab`.
        tool("cp", &[text(&original), text(&copy)]);
        let context = folder.path().join("context");
        fs::create_dir(&context).unwrap();
        let source = folder.path().join("payload.c");
        fs::write(&source, PAYLOAD).unwrap();
        let payload = context.join("payload");
        tool("gcc", &["-static", "-o", text(&payload), text(&source)]);
        fs::write(context.join("script"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(context.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        // A program whose loader is /proc/self/exe.
        let loaded = folder.path().join("loaded.c");
        fs::write(&loaded, "int main(void) { return 0; }\n").unwrap();
        let loader = "-Wl,--dynamic-linker=/proc/self/exe";
        tool("gcc", &[loader, "-o", text(&context.join("loaded")), text(&loaded)]);
        let dockerfile = "FROM busybox\nCOPY payload /lib64/ld-linux-x86-64.so.2\n\
                          COPY payload script loaded /\nRUN ln -s /proc/self/exe /link\n";
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let sandbox = Sandbox::with_busybox();
        sandbox.isolab(&["image", "build", "-t", "hostile"]).arg(&context).finish().success();
        Self { sandbox, folder, copy, original }
    }

    /// The copy, in a process group of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.copy);
        command.args(arguments).env("XDG_DATA_HOME", self.sandbox.data()).process_group(0);
        // Where the others of the package are, which the copy does not lie beside.
        let others = self.original.parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", text(others)));
        command
    }

    /// A folder to build: `command` in the attacker's image.
    fn build_context(&self, command: &str) -> PathBuf {
        let context = self.folder.path().join("build");
        fs::create_dir_all(&context).unwrap();
        let dockerfile = format!("FROM hostile\nRUN {command}\n");
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        context
    }

    #[track_caller]
    fn assert_unharmed(&self) {
        let same = fs::read(&self.copy).unwrap() == fs::read(&self.original).unwrap();
        assert!(same, "the executable was overwritten");
    }
}

#[test]
fn the_executable_cannot_be_started_by_the_image_s_loader() {
    let attack = Attack::new("isolab", "isolab-attacked");
    let ways: [&[&str]; 5] =
        [&["/proc/self/exe"], &["/link"], &["/script"], &["/proc/1/exe"], &["/loaded"]];
    for level in ["container", "process"] {
        for way in ways {
            // At `process`, 1 is the host's own.
            if level == "process" && way == ["/proc/1/exe"] {
                continue;
            }
            let words = [&["run", "--isolation", level, "hostile"], way].concat();
            let done = Run::new(attack.command(&words)).finish();
            assert_eq!(done.code(), Some(126), "{level} {way:?}: {done:?}");
            assert!(done.stderr.contains("leads to /proc/self/exe"), "{level} {way:?}: {done:?}");
            assert_eq!(done.stdout, "", "{level} {way:?}");
            attack.assert_unharmed();
        }
    }
    let attack = Attack::new("isolab-image", "image-attacked");
    for command in [r#"["/proc/self/exe"]"#, r#"["/script"]"#] {
        let context = attack.build_context(command);
        let done = Run::new(attack.command(&["build", "-t", "built", text(&context)])).finish();
        assert_eq!(done.code(), Some(125), "{done:?}");
        assert!(!done.stderr.contains("payload runs"), "{done:?}");
        attack.assert_unharmed();
    }
}

/// The names of all processes with `word` in their command line.
fn processes(word: &str) -> Vec<String> {
    let folders = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let has_word = |folder: &PathBuf| {
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word)
    };
    let name = |folder: PathBuf| fs::read_to_string(folder.join("comm")).ok();
    folders.filter(has_word).filter_map(name).map(|name| name.trim().to_owned()).collect()
}

/// Looks until `is_so`.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nothing_outlives_a_command_that_is_killed() {
    // Short, and no other process's: pkill takes it for a pattern.
    let name = format!("il{}", std::process::id());
    type Kill = (&'static str, fn(i32, &str));
    let kills: [Kill; 3] = [
        ("kill -9", |pid, _| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap()),
        ("kill -9 of the group", |pid, _| killpg(Pid::from_raw(pid), Signal::SIGKILL).unwrap()),
        ("pkill -9", |_, name| drop(tool("pkill", &["-9", name]))),
    ];
    for level in ["container", "process", "build"] {
        let executable = if level == "build" { "isolab-image" } else { "isolab" };
        let attack = Attack::new(executable, &name);
        for (how, kill) in kills {
            let word = format!("{name}-{level}");
            let context = attack.build_context(&format!(r#"["/payload", "{word}"]"#));
            let words: Vec<&str> = match level {
                "build" => vec!["build", "-t", &word, text(&context)],
                _ => {
                    vec!["run", "--isolation", level, "--name", &word, "hostile", "/payload", &word]
                }
            };
            let mut command = attack.command(&words);
            let cli = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut cli = cli.spawn().unwrap();
            let payloads = || processes(&word).iter().filter(|name| *name == "payload").count();
            eventually("the payload runs", || payloads() == 2);
            kill(cli.id() as i32, &name);
            cli.wait().unwrap();
            eventually(&format!("nothing is left after {how} at {level}"), || {
                processes(&word).is_empty()
            });
            attack.assert_unharmed();
            assert_eq!(cgroups_named(&word), [""; 0], "{how}, {level}");
            // Streams of the caller's are held by nobody.
            let output = std::io::read_to_string(cli.stdout.take().unwrap()).unwrap();
            assert!(!output.contains("overwritten"), "{output}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(attack.sandbox.data().to_str().unwrap()), "{mounts}");
    }
}

/// An image with the host's devices in a layer: an archive as `docker save` writes it.
fn image_with_nodes(folder: &Path) -> PathBuf {
    let files = folder.join("files");
    fs::create_dir_all(files.join("bin")).unwrap();
    tool("cp", &["/bin/busybox", text(&files.join("bin/busybox"))]);
    symlink("busybox", files.join("bin/sh")).unwrap();
    // The null device, which anybody may use, so that nothing but the mount keeps it from being opened.
    for (name, kind, major, minor) in [("disk", "b", "7", "0"), ("null", "c", "1", "3")] {
        tool("mknod", &["-m", "666", text(&files.join(name)), kind, major, minor]);
    }
    let archive = folder.join("archive");
    fs::create_dir(&archive).unwrap();
    tool("tar", &["-C", text(&files), "-cf", text(&archive.join("layer.tar")), "."]);
    let diff_id = tool("sha256sum", &[text(&archive.join("layer.tar"))]);
    let diff_id = format!("sha256:{}", diff_id.split_whitespace().next().unwrap());
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "config": {}
    });
    fs::write(archive.join("config.json"), config.to_string()).unwrap();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": ["nodes:latest"], "Layers": ["layer.tar"]}
    ]);
    fs::write(archive.join("manifest.json"), manifest.to_string()).unwrap();
    let packed = folder.join("nodes.tar");
    tool("tar", &["-C", text(&archive), "-cf", text(&packed), "."]);
    packed
}

#[test]
fn device_nodes_of_an_image_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::empty();
    sandbox.isolab(&["image", "load"]).arg(image_with_nodes(folder.path())).finish().success();
    let script = "test -b /disk && test -c /null && echo there; \
                  for node in disk null; do \
                      (exec 3</$node) 2>/dev/null && echo read $node; \
                      (exec 3>/$node) 2>/dev/null && echo wrote $node; \
                  done; echo end";
    for level in ["process", "container"] {
        let run = sandbox.isolab(&["run", "--isolation", level, "nodes", "sh", "-c", script]);
        assert_eq!(run.finish().success(), "there\nend\n", "{level}");
    }
    let context = folder.path().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), format!("FROM nodes\nRUN {script}\n")).unwrap();
    let built = sandbox.isolab(&["image", "build", "-t", "built"]).arg(&context).finish();
    assert!(built.stderr.contains("there"), "{built:?}");
    assert!(
        !built.stderr.contains("read null") && !built.stderr.contains("wrote null"),
        "{built:?}"
    );
    built.success();
}
