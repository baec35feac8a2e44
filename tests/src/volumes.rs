//! What instances keep and share, and what they cannot write: the same at every level.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use isolab_file_semantics::EXPECTATIONS;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Done, Sandbox, text};

/// The program that tries what a folder can do.
const SEMANTICS: &[u8] = include_bytes!(env!("ISOLAB_FILE_SEMANTICS"));

/// `isolab run` of a shell's script, with these options.
fn run(sandbox: &Sandbox, level: &str, options: &[&str], script: &str) -> Done {
    let words = [&["run", "--isolation", level], options, &["busybox", "sh", "-c", script]];
    sandbox.isolab(&words.concat()).finish()
}

fn volumes(sandbox: &Sandbox) -> String {
    sandbox.isolab(&["volume", "ls", "--quiet"]).finish().success()
}

/// Builds an image of busybox with these further lines of its Dockerfile.
fn build(sandbox: &Sandbox, name: &str, lines: &str, files: &[(&str, &[u8])]) {
    let context = tempfile::tempdir().unwrap();
    for (file, content) in files {
        fs::write(context.path().join(file), content).unwrap();
    }
    let dockerfile = context.path().join("Dockerfile");
    fs::write(&dockerfile, format!("FROM busybox\n{lines}")).unwrap();
    let words = ["image", "build", "-t", name, text(context.path())];
    sandbox.isolab(&words).finish().success();
}

/// A named volume outlives its instances; an anonymous one goes with its own.
pub fn kept_and_gone(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let data = |script: &str| run(&sandbox, level, &["-v", "data:/var/lib/data"], script);
    data("echo one >/var/lib/data/file; mkdir /var/lib/data/folder").success();
    let found =
        data("cat /var/lib/data/file; ls /var/lib/data; grep -c ' /var/lib/data ' /proc/mounts");
    assert_eq!(found.success(), "one\nfile\nfolder\n1\n", "{level}");
    let anonymous =
        run(&sandbox, level, &["-v", "/var/own"], "echo x >/var/own/x && cat /var/own/x");
    assert_eq!(anonymous.success(), "x\n");
    assert_eq!(volumes(&sandbox), "data\n");
    let told = sandbox.isolab(&["volume", "inspect", "data"]).finish().success();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["Name"], "data");
    assert!(fs::metadata(told[0]["Mountpoint"].as_str().unwrap()).is_ok(), "{told}");
    let memory =
        run(&sandbox, level, &["--tmpfs", "/mem:size=1M,mode=0700"], "stat -c %a /mem; df -k /mem");
    let memory = memory.success();
    assert!(memory.starts_with("700\n") && memory.contains(" 1024 "), "{memory}");
    assert_eq!(sandbox.isolab(&["volume", "rm", "data"]).finish().success(), "data\n");
    assert_eq!(volumes(&sandbox), "");
}

/// A new volume has what the image has at its path, with owners and modes; the next one's image does not matter.
pub fn copied_up(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let lines = "RUN mkdir -p /srv/data/in && echo image >/srv/data/file && ln -s file /srv/data/link \
                 && chown -R 12:34 /srv/data && chmod 2750 /srv/data && chmod 600 /srv/data/file\n\
                 VOLUME /srv/data\n";
    build(&sandbox, "app", lines, &[]);
    let app = |options: &[&str], script: &str| {
        let words = [&["run", "--isolation", level], options, &["app", "sh", "-c", script]];
        sandbox.isolab(&words.concat()).finish().success()
    };
    let look = "cd /srv/data; stat -c '%u:%g %a %n' . file in; readlink link; cat file; ls";
    let expected = "12:34 2750 .\n12:34 600 file\n12:34 755 in\nfile\nimage\nfile\nin\nlink\n";
    assert_eq!(app(&["-v", "data:/srv/data"], look), expected, "{level}");
    // The image's own declaration, anonymous.
    assert_eq!(app(&[], look), expected, "{level}");
    assert_eq!(
        app(&[], "echo x >/srv/data/new && cat /srv/data/new; grep -c ' /srv/data ' /proc/mounts"),
        "x\n1\n"
    );
    assert_eq!(app(&["--read-only"], "echo x >/srv/data/new && cat /srv/data/new"), "x\n");
    app(&["-v", "data:/srv/data"], "rm /srv/data/link; echo ours >/srv/data/file");
    assert_eq!(
        app(&["-v", "data:/srv/data"], "cat /srv/data/file; ls /srv/data"),
        "ours\nfile\nin\n"
    );
    let plain = app(&["-v", "plain:/srv/data:nocopy"], "ls /srv/data");
    assert_eq!(plain, "", "{level}");
    assert_eq!(volumes(&sandbox), "data\nplain\n");
}

/// Folders and files of the host, by both options; what is missing of the path is made.
pub fn host_folders(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let folder = host.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "of the host\n").unwrap();
    let (folder, file) = (text(&folder), format!("{}/file", text(&folder)));
    let script = "cat /made/for/it/file; echo new >/made/for/it/new; stat -c %u /made/for/it/new";
    let mounted = format!("{folder}:/made/for/it");
    let seen = run(&sandbox, level, &["-v", &mounted], script).success();
    assert_eq!(seen, "of the host\n0\n", "{level}");
    assert_eq!(fs::read_to_string(format!("{folder}/new")).unwrap(), "new\n");
    let words = format!("type=bind,source={file},target=/etc/one,readonly");
    let script = "cat /etc/one; echo x >/etc/one";
    let done = run(&sandbox, level, &["--mount", &words], script);
    assert_eq!((done.stdout.as_str(), done.code()), ("of the host\n", Some(1)), "{done:?}");
    let own = format!("{file}:/etc/hosts");
    assert_eq!(run(&sandbox, level, &["-v", &own], "cat /etc/hosts").success(), "of the host\n");
}

/// Read-only volumes and roots; what is memory can be written all the same.
pub fn read_only(level: &str) {
    let sandbox = Sandbox::with_busybox();
    run(&sandbox, level, &["-v", "data:/data"], "echo x >/data/file").success();
    let script = "cat /data/file; echo y >/data/file; echo $?; touch /data/new; echo $?; touch /can && echo can";
    let done = run(&sandbox, level, &["-v", "data:/data:ro"], script).success();
    assert_eq!(done, "x\n1\n1\ncan\n", "{level}");
    let script =
        "for f in /run/a /tmp/a /var/tmp/a /dev/shm/a /data/a; do echo x >$f && cat $f; rm $f; done
                  for f in /a /etc/a /usr/a; do touch $f || echo not; done; stat -c %a /tmp /run";
    let done = run(&sandbox, level, &["--read-only", "-v", "data:/data"], script).success();
    assert_eq!(done, "x\nx\nx\nx\nx\nnot\nnot\nnot\n1777\n755\n", "{level}");
    let done = run(
        &sandbox,
        level,
        &["--read-only", "--read-only-tmpfs=false"],
        "touch /tmp/a || echo not",
    );
    assert_eq!(done.success(), "not\n", "{level}");
}

/// What programs count on: renames, maps, locks, sparse files and the like.
pub fn semantics(level: &str) {
    let sandbox = Sandbox::with_busybox();
    build(&sandbox, "checks", "COPY --chmod=755 check /bin/check\n", &[("check", SEMANTICS)]);
    let words = ["run", "--isolation", level, "-v", "data:/data", "checks", "/bin/check", "/data"];
    let done = sandbox.isolab(&words).finish();
    let wrong: Vec<_> = done.stdout.lines().filter(|line| !line.ends_with(": ok")).collect();
    let count = done.stdout.lines().count();
    assert!(wrong.is_empty() && count == EXPECTATIONS.len(), "{level}: {done:?}");
}

/// One clear line each, and 125.
pub fn refused(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let file = sandbox.data().join("file");
    fs::write(&file, "").unwrap();
    let under_file = format!("{}/x:/x", text(&file));
    for (options, words) in [
        (
            &["-v", "/no/such/folder:/x"][..],
            &["--volume /no/such/folder:/x", "cannot use /no/such/folder"][..],
        ),
        (&["-v", &under_file], &["Not a directory"]),
        (&["-v", "data:relative"], &["absolute"]),
        (&["-v", "da ta:/x"], &["cannot be a volume's name"]),
        (&["-v", "data:/"], &["not /"]),
        (&["-v", "data:/x:U"], &["U is not supported"]),
        (&["-v", "data:/x:huge"], &["`huge` is no option"]),
        (&["-v", "a:/x", "-v", "b:/x"], &["two mounts on one path"]),
        (&["--mount", "type=devpts,target=/x"], &["type=devpts is not supported"]),
        (&["--tmpfs", "/x:size=big"], &["size=big"]),
        (&["--add-host", "a:b"], &["`b` is no IP address"]),
    ] {
        let done = run(&sandbox, level, options, "true");
        assert_eq!(
            done.stderr.trim_end().lines().count(),
            1 + usize::from(options[0] == "--add-host") * 2,
            "{done:?}"
        );
        done.fails_with(125, words);
    }
    sandbox.isolab(&["volume", "create", "--opt", "type=disk", "disk"]).finish().success();
    let disk = run(&sandbox, level, &["-v", "disk:/x"], "true");
    disk.fails_with(125, &["volume `disk` is a disk, which only a virtual machine can mount"]);
    for (words, message) in [
        (&["rm", "missing"][..], "no such volume: `missing`"),
        (&["inspect", "missing"], "no such volume: `missing`"),
        (&["create", "disk"], "volume `disk` exists already"),
        (&["create", "--opt", "size=1", "x"], "a disk of 1 bytes"),
    ] {
        sandbox.isolab(&[&["volume"], words].concat()).finish().fails_with(125, &[message]);
    }
    sandbox
        .isolab(&["volume", "create", "../x"])
        .finish()
        .fails_with(2, &["cannot be a volume's name"]);
    assert_eq!(volumes(&sandbox), "disk\n");
}

/// Neither a running instance's volume goes, nor that of one which will run again; and a kill of who looks after it
/// gives its volumes back.
pub fn in_use(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let words = ["run", "--isolation", level, "--name", "user", "-v", "data:/data", "-v", "/own"];
    let script = ["busybox", "sh", "-c", "echo ready; while :; do sleep 0.1; done"];
    let mut running = sandbox.isolab(&[&words[..], &script].concat()).start(Stdio::null());
    running.wait_for("ready");
    // In the foreground an instance is told of when its command runs already.
    crate::lifecycle::until("it is told who has the volume", || {
        let told = sandbox.isolab(&["volume", "inspect", "data"]).finish().success();
        told.contains("\"user\"")
    });
    let rm = || sandbox.isolab(&["volume", "rm", "data"]).finish();
    rm().fails_with(125, &["volume `data` is being used by the following instances: user"]);
    assert_eq!(sandbox.isolab(&["volume", "prune"]).finish().success(), "");
    assert_eq!(volumes(&sandbox).lines().count(), 2);
    kill(Pid::from_raw(running.id() as i32), Signal::SIGKILL).unwrap();
    drop(running.finish());
    // Who looks after what a killed one left has to be done with it first.
    crate::lifecycle::until("the volume is free", || rm().status.success());
    crate::lifecycle::until("the anonymous volume is gone", || volumes(&sandbox).is_empty());

    let kept = ["create", "--isolation", level, "--name", "kept", "-v", "data:/data", "-v", "/own"];
    sandbox
        .isolab(&[&kept[..], &["busybox", "sh", "-c", "echo x >/own/x"]].concat())
        .finish()
        .success();
    sandbox.isolab(&["start", "--attach", "kept"]).finish().success();
    rm().fails_with(125, &["following instances: kept"]);
    sandbox.isolab(&["rm", "kept"]).finish().success();
    // Without -v an anonymous one stays, as podman has it.
    assert_eq!(volumes(&sandbox).lines().count(), 2);
    let pruned = sandbox.isolab(&["volume", "prune"]).finish().success();
    assert_eq!(pruned.lines().count(), 2, "{pruned}");
    sandbox.isolab(&[&kept[..], &["busybox", "true"]].concat()).finish().success();
    sandbox.isolab(&["start", "--attach", "kept"]).finish().success();
    sandbox.isolab(&["rm", "--volumes", "kept"]).finish().success();
    assert_eq!(volumes(&sandbox), "data\n");
}

/// Lines of /etc/hosts.
pub fn hosts(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let options = ["--add-host", "db;data:10.9.8.7", "--add-host", "six:fd00::1"];
    let hosts = run(&sandbox, level, &options, "cat /etc/hosts").success();
    assert!(hosts.starts_with("10.9.8.7\tdb data\nfd00::1\tsix\n"), "{hosts}");
    assert!(hosts.contains("localhost"), "{hosts}");
}

/// Links of an image's maker on the way to a mount's place lead nowhere but into its root.
pub fn hostile_targets(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let outside = tempfile::tempdir().unwrap();
    let lines = format!(
        "RUN ln -s {0} /srv; ln -s ../../../../../../..{0} /up; ln -s /proc/1/root{0} /magic\n",
        text(outside.path())
    );
    build(&sandbox, "hostile", &lines, &[]);
    fs::write(outside.path().join("secret"), "of the host").unwrap();
    symlink("/", outside.path().join("root")).unwrap();
    for path in ["/srv/made", "/up/made", "/magic/made", "/srv"] {
        let mount = format!("data:{path}");
        let words = ["run", "--isolation", level, "-v", &mount, "hostile", "sh", "-c"];
        let script = format!("ls {path}; echo x >{path}/file");
        let done = sandbox.isolab(&[&words[..], &[&script]].concat()).finish();
        assert!(!done.stdout.contains("secret"), "{done:?}");
        let mut names: Vec<_> =
            fs::read_dir(outside.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["root", "secret"], "{path}: {done:?}");
    }
    sandbox.isolab(&["volume", "rm", "data"]).finish().success();
}

/// A volume that is a disk is one machine's at a time, whichever of the two levels; fullvirt takes no folder.
pub fn one_machine_at_a_time() {
    let sandbox = Sandbox::with_busybox();
    run(&sandbox, "fullvirt", &["-v", "disk:/data"], "echo PC >/data/file").success();
    let read = run(&sandbox, "paravirt", &["-v", "disk:/data"], "cat /data/file; ls /data");
    assert_eq!(read.success(), "PC\nfile\n");
    let words = ["run", "--isolation", "fullvirt", "-v", "disk:/data", "busybox", "sh", "-c"];
    let script = "echo ready; while :; do sleep 0.1; done";
    let mut running = sandbox.isolab(&[&words[..], &[script]].concat()).start(Stdio::null());
    running.wait_for("ready");
    for level in ["fullvirt", "paravirt"] {
        let second = run(&sandbox, level, &["-v", "disk:/data"], "true");
        second.fails_with(125, &["volume `disk` is a disk, and another instance has it"]);
    }
    drop(running);
    run(&sandbox, "container", &["-v", "folder:/data"], "true").success();
    let folder = run(&sandbox, "fullvirt", &["-v", "folder:/data"], "true");
    folder.fails_with(125, &["volume `folder` is a folder of the host", "no PC hardware shares"]);
    let host = run(&sandbox, "fullvirt", &["-v", "/tmp:/data"], "true");
    host.fails_with(125, &["/tmp cannot be seen at fullvirt", "no PC hardware shares a folder"]);
    let two = run(&sandbox, "fullvirt", &["-v", "disk:/a", "-v", "more:/b"], "true");
    two.fails_with(125, &["2 volumes that are disks", "room for 1"]);
    let container = run(&sandbox, "container", &["-v", "disk:/data"], "true");
    container.fails_with(125, &["only a virtual machine can mount"]);
}

/// Data that was synced is there when everything was killed, and the volume can be used.
pub fn survives_a_kill(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let words = ["run", "--isolation", level, "-v", "data:/data", "busybox", "sh", "-c"];
    let script = "head -c 3145728 /dev/zero | tr '\\0' x >/data/file; sync; echo synced; while :; do sleep 0.1; done";
    let mut running = sandbox.isolab(&[&words[..], &[script]].concat()).start(Stdio::null());
    running.wait_for("synced");
    kill(Pid::from_raw(running.id() as i32), Signal::SIGKILL).unwrap();
    drop(running.finish());
    let script = "tr -d x </data/file | wc -c; wc -c </data/file";
    let left = run(&sandbox, level, &["-v", "data:/data"], script);
    assert_eq!(left.success(), format!("0\n{}\n", 3 << 20), "{level}");
}
