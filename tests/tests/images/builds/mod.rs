//! Builds: beside podman's, reproducible, and what a failed or killed one leaves.

mod constructs;
mod mounts;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use isolab_tests::{
    Run, Sandbox, TIME_LIMIT, busybox_layout, install_isolab, isolab_path, text, tool,
};
use nix::sys::signal::Signal;

const DOCKERFILE: &str = r#"
ARG BASE=busybox
FROM $BASE AS builder
ARG GREETING=hello
WORKDIR /build
COPY src .
RUN echo "$GREETING from $(id -u)" >out \
    # comments are left out

    && mkdir bin && cp out bin/program && chmod 4755 bin/program \
    && ln bin/program bin/second && ln -s program bin/third
FROM busybox
ENV MODE=production
RUN mkdir -p /srv/data /srv/work && chown 33:34 /srv/data && chmod 2750 /srv/data \
    && rm -r /var && touch /srv/made && chmod 1700 /tmp
COPY --from=builder /build/bin/ /usr/local/bin/
COPY --chown=33:34 src/*.txt /srv/
COPY src /tree
ADD archive.tar.gz /opt/
WORKDIR /srv/work
USER nobody
RUN test "$(id -u):$MODE" = 65534:production
CMD ["cat", "/usr/local/bin/third"]
"#;

/// Everything but what the runtimes of either put there themselves.
const LISTING: &str = r#"find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/run*' \
    ! -path /etc/hostname ! -path /etc/hosts ! -path /etc/resolv.conf | sort |
    while read -r f; do
        stat -c '%n %a %u:%g %F %s' "$f"; readlink "$f" || true
        if [ -f "$f" ]; then stat -c %h "$f"; md5sum "$f"; fi
    done"#;

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn context(folder: &Path) {
    for (name, content) in [
        ("Dockerfile", DOCKERFILE),
        ("src/a.txt", "a"),
        ("src/deep/b.txt", "b"),
        ("src/deep/x.log", "log"),
        (".dockerignore", "**/*.log\n"),
        ("t/in", "in"),
    ] {
        write(folder, name, content);
    }
    let archive = folder.join("archive.tar.gz");
    tool("tar", &["-C", text(folder), "--owner=7", "--group=8", "-czf", text(&archive), "t"]);
    fs::remove_dir_all(folder.join("t")).unwrap();
}

#[test]
fn podman_build_and_ours_give_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("context");
    context(&folder);
    let sandbox = Sandbox::with_busybox();
    let build = ["image", "build", "--timestamp", "0", "-t", "app", text(&folder)];
    let digest = sandbox.isolab(&build).finish().success();
    for level in ["process", "container"] {
        let output = sandbox.isolab(&["run", "--isolation", level, "app"]).finish().success();
        assert_eq!(output, "hello from 0\n");
    }
    let ours = sandbox.isolab(&["run", "-u", "0", "app", "sh", "-c", LISTING]).finish().success();

    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let (root, runroot) = (path("podman"), path("podman-run"));
    let podman = |arguments: &[&str]| {
        let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        tool("podman", &[&own, arguments].concat())
    };
    let base = format!("docker-archive:{}:docker.io/library/busybox:latest", path("base.tar"));
    tool("skopeo", &["copy", &format!("oci:{}:busybox:latest", busybox_layout().display()), &base]);
    podman(&["load", "-i", &path("base.tar")]);
    podman(&["build", "--isolation", "chroot", "--network", "host", "-t", "theirs", text(&folder)]);
    podman(&["save", "--format", "oci-archive", "-o", &path("theirs.tar"), "localhost/theirs"]);
    sandbox.isolab(&["image", "load", &path("theirs.tar")]).finish().success();
    // By the short name of what podman calls localhost/theirs.
    let run = ["run", "-u", "0", "theirs", "sh", "-c", LISTING];
    let theirs = sandbox.isolab(&run).finish().success();
    let differ: Vec<_> = ours.lines().zip(theirs.lines()).filter(|(a, b)| a != b).take(9).collect();
    assert_eq!((differ, ours.len()), (Vec::new(), theirs.len()));
    assert!(ours.lines().count() > 250, "{ours}");

    // The same again elsewhere, without any cache.
    let other = Sandbox::with_busybox();
    assert_eq!(other.isolab(&build).finish().success(), digest);
    let archive = path("ours.tar");
    sandbox.isolab(&["image", "save", "-o", &archive, "app"]).finish().success();
    let inspected = tool("skopeo", &["inspect", "--config", &format!("oci-archive:{archive}")]);
    assert!(inspected.contains("MODE=production"), "{inspected}");
    tool("skopeo", &["copy", &format!("oci-archive:{archive}"), &format!("oci:{}:app", path("o"))]);
    tool("umoci", &["unpack", "--image", &format!("{}:app", path("o")), &path("bundle")]);
    let unpacked = dir.path().join("bundle/rootfs/usr/local/bin/program");
    assert_eq!(fs::read_to_string(unpacked).unwrap(), "hello from 0\n");
}

#[test]
fn steps_are_cached_and_their_output_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "input", "1");
    write(
        dir.path(),
        "Dockerfile",
        "FROM busybox\nCOPY input /\nRUN echo input is $(cat /input)\n",
    );
    let sandbox = Sandbox::with_busybox();
    let build = ["image", "build", "-t", "app", text(dir.path())];
    let first = sandbox.isolab(&build).finish();
    assert!(first.stderr.contains("input is 1"), "{first:?}");
    let second = sandbox.isolab(&build).finish();
    assert!(
        !second.stderr.contains("input is 1") && second.stderr.contains("cached"),
        "{second:?}"
    );
    assert_eq!(first.stdout, second.stdout);
    write(dir.path(), "input", "2");
    assert!(sandbox.isolab(&build).finish().stderr.contains("input is 2"));
    let quiet = ["image", "build", "--quiet", "--no-cache", text(dir.path())];
    assert!(sandbox.isolab(&quiet).finish().stderr.contains("input is 2"));
}

/// The same layer twice: of equal files, or of equal nothing.
#[test]
fn a_file_that_goes_and_comes_again_is_there() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "f", "content");
    let dockerfile = "FROM busybox\nCOPY f /f\nRUN rm /f\nCOPY f /f\nRUN cat /f\nRUN rm /f\n\
                      COPY f /f\n";
    write(dir.path(), "Dockerfile", dockerfile);
    let sandbox = Sandbox::with_busybox();
    let build = ["image", "build", "-t", "app", text(dir.path())];
    sandbox.isolab(&build).finish().success();
    for level in ["process", "container"] {
        let run = ["run", "--isolation", level, "app", "cat", "/f"];
        assert_eq!(sandbox.isolab(&run).finish().success(), "content");
    }
}

/// `FROM scratch` and settings: no layers at all, and nothing to run but the host's mounts.
#[test]
fn an_image_without_layers_is_an_image() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "Dockerfile", "FROM scratch\nENV A=b\nCMD [\"/none\"]\n");
    let sandbox = Sandbox::empty();
    let isolab = |words: &[&str]| sandbox.isolab(words).finish();
    isolab(&["image", "build", "-t", "empty", text(dir.path())]).success();
    for level in ["process", "container"] {
        isolab(&["run", "--isolation", level, "empty"]).fails_with(127, &["/none"]);
    }
    let archive = text(&dir.path().join("empty.tar")).to_owned();
    isolab(&["image", "save", "--format", "docker-archive", "-o", &archive, "empty"]).success();
    isolab(&["image", "rm", "empty"]).success();
    isolab(&["image", "load", &archive]).success();
    isolab(&["run", "empty"]).fails_with(127, &["/none"]);
}

#[test]
fn what_fails_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::with_busybox();
    let fails = |dockerfile: &str, words: &[&str]| {
        write(dir.path(), "Dockerfile", dockerfile);
        sandbox.isolab(&["image", "build", text(dir.path())]).finish().fails_with(125, words);
    };
    fails("FROM busybox\n\nRUN exit 7\n", &["Dockerfile:3: RUN exit 7", "exit code 7"]);
    fails("FROM busybox\nRUN [\"/none\"]\n", &["Dockerfile:2", "/none"]);
    fails("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n", &["exit code 137"]);
    fails("FROM busybox\nUSER nobody-here\nRUN true\n", &["Dockerfile:3", "nobody-here"]);
    fails("FROM busybox\nINVALID\n", &["Dockerfile", "line 2"]);
    fails("FROM 127.0.0.1:1/none\n", &["127.0.0.1:1/none", "cannot pull"]);
    sandbox.isolab(&["image", "build", "/no/such"]).finish().fails_with(125, &["/no/such"]);
    let left = fs::read_dir(sandbox.data().join("isolab/images/partial")).unwrap().count();
    assert_eq!(left, 0);
}

/// How much is in a folder.
fn count(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_build_that_is_interrupted_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let token = "a-secret-of-this-test";
    let script = "RUN --mount=type=secret,id=token --mount=type=cache,target=/c,sharing=locked \\\n\
                  trap '' INT TERM; echo begun; sleep 1000\n";
    write(dir.path(), "context/Dockerfile", &format!("FROM busybox\n{script}"));
    let sandbox = Sandbox::with_busybox();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(isolab_path());
        shell.args(["image", "build", "--quiet", "--secret", "id=token,env=TOKEN"]);
        shell.arg(dir.path().join("context")).env("TOKEN", token).env("TMPDIR", &temporary);
        shell.env("XDG_DATA_HOME", sandbox.data());
        let mut running = Run::new(shell).start(Stdio::null());
        running.wait_for("begun");
        // Of builds beside this one too, which end in time.
        let find = "find /sys/fs/cgroup -type d -name '*build-*' 2>/dev/null || true";
        let cgroups = tool("sh", &["-c", find]);
        assert_ne!(cgroups, "");
        running.signal(signal);
        let done = running.finish();
        assert_eq!(done.code(), Some(code), "{done:?}");
        assert!(done.stdout.contains("interrupted"), "{done:?}");
        let partial = sandbox.data().join("isolab/images/partial");
        assert_eq!((count(&partial), count(&temporary)), (0, 0));
        let deadline = Instant::now() + TIME_LIMIT;
        while let Some(left) = cgroups.lines().find(|group| Path::new(group).exists()) {
            assert!(Instant::now() < deadline, "{left} is left");
            thread::sleep(Duration::from_millis(50));
        }
    }
    let secrets = fs::read_dir("/dev/shm").unwrap().filter_map(|entry| {
        let file = entry.ok()?.path().join("0");
        fs::read_to_string(file).ok().filter(|text| text == token)
    });
    assert_eq!(secrets.count(), 0);
}

#[test]
fn a_build_that_is_killed_leaves_a_sound_store() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "Dockerfile", "FROM busybox\nRUN echo 1 >/a\nRUN echo begun; sleep 1000\n");
    let sandbox = Sandbox::with_busybox();
    // Steps write to standard error, and the test waits for a line of standard output.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(isolab_path());
    shell.args(["image", "build", text(dir.path())]).env("XDG_DATA_HOME", sandbox.data());
    let mut running = Run::new(shell).start(Stdio::null());
    running.wait_for("begun");
    running.signal(Signal::SIGKILL);
    running.finish();
    let partial = sandbox.data().join("isolab/images/partial");
    assert_ne!(fs::read_dir(&partial).unwrap().count(), 0, "the build was not under way");
    sandbox.isolab(&["image", "prune"]).finish().success();
    assert_eq!(fs::read_dir(&partial).unwrap().count(), 0);
    write(dir.path(), "Dockerfile", "FROM busybox\nRUN echo 1 >/a\nRUN cat /a\n");
    let build = sandbox.isolab(&["image", "build", text(dir.path())]).finish();
    assert!(build.stderr.contains("cached"), "{build:?}");
    build.success();
}

/// Without root, all files are the caller's own and root's inside; the image has them as root's.
#[test]
fn somebody_without_rights_builds_an_image_of_roots_files() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "context/src/file", "content");
    write(
        dir.path(),
        "context/Dockerfile",
        "FROM busybox\nCOPY src /src\nRUN id -u >/made && rm /etc/group && rm -r /var\n",
    );
    tool("cp", &["-r", text(&busybox_layout()), text(&dir.path().join("busybox"))]);
    let isolab = install_isolab(dir.path());
    tool("chmod", &["-R", "a+rX", text(dir.path())]);
    tool("install", &["-d", "-o", "65534", "-g", "65534", text(&dir.path().join("data"))]);
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&isolab);
        command.args(arguments).current_dir(dir.path());
        command.env("XDG_DATA_HOME", dir.path().join("data")).env_remove("XDG_RUNTIME_DIR");
        Run::new(command).finish().success()
    };
    nobody(&["image", "load", "busybox"]);
    nobody(&["image", "build", "-t", "app", "context"]);
    nobody(&["image", "save", "-o", "data/app.tar", "app"]);
    let root = Sandbox::empty();
    root.isolab(&["image", "load"]).arg(dir.path().join("data/app.tar")).finish().success();
    let script = "cat /made /src/file; stat -c %u:%g /made /src/file; ls /var /etc/group";
    let seen = root.isolab(&["run", "app", "sh", "-c", script]).finish();
    assert_eq!(seen.stdout, "0\ncontent0:0\n0:0\n", "{}", seen.stderr);
}
