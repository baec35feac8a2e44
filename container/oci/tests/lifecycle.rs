//! The life of containers by the command line, as an engine goes through it. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;

use support::Bundle;

#[test]
fn from_create_to_delete() {
    let bundle = Bundle::new("echo > /tmp/runs; exec sleep 1000");
    bundle.create().fine();
    assert_eq!((bundle.status().as_str(), bundle.says("runs")), ("created", false));
    let pid = fs::read_to_string(bundle.path("pid")).unwrap();
    bundle.create().fails(1, "exists");
    let of = |verb| bundle.oci(&[verb, &bundle.id]);
    of("delete").fails(1, "cannot delete");
    of("pause").fails(1, "it is created");
    of("start").fine();
    bundle.wait_for("it runs", || bundle.says("runs"));
    assert_eq!(bundle.status(), "running");
    of("start").fails(1, "it is running");
    of("delete").fails(1, "it is running");
    assert_eq!(
        bundle.oci(&["ps", &bundle.id, "--format", "json"]).fine().trim(),
        format!("[{pid}]")
    );
    assert!(bundle.oci(&["list"]).fine().contains(&bundle.id));

    let exec = bundle.oci(&[
        "exec",
        "--env",
        "A=b",
        "--cwd",
        "/tmp",
        "--user",
        "7:8",
        &bundle.id,
        "sh",
        "-c",
        "echo $A $(busybox pwd) $(busybox id -u) $(busybox id -g) $$; exit 3",
    ]);
    assert_eq!((exec.code, exec.output.as_str()), (3, "b /tmp 7 8 2\n"));
    bundle
        .oci(&["exec", &bundle.id, "absent"])
        .fails(127, "exec: \"absent\": executable file not found in $PATH");
    let detached = bundle.path("exec-pid");
    let words =
        ["exec", "--detach", "--pid-file", detached.to_str().unwrap(), &bundle.id, "sleep", "999"];
    bundle.oci(&words).fine();
    let table = of("ps").fine();
    assert!(table.contains("sleep 999") && table.contains(&fs::read_to_string(detached).unwrap()));

    of("pause").fine();
    assert_eq!(bundle.status(), "paused");
    bundle.oci(&["exec", &bundle.id, "true"]).fails(1, "it is paused");
    of("pause").fails(1, "it is paused");
    of("resume").fine();
    assert_eq!(bundle.status(), "running");

    bundle.oci(&["kill", &bundle.id, "KILL"]).fine();
    bundle.wait_for("it stops", || bundle.status() == "stopped");
    bundle.oci(&["kill", &bundle.id]).fails(1, "it is stopped");
    bundle.oci(&["exec", &bundle.id, "true"]).fails(1, "it is stopped");
    of("delete").fine();
    bundle.is_gone();
    of("delete").fails(1, "does not exist");
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
}

#[test]
fn one_of_two_starts_and_only_one() {
    let bundle = Bundle::new("echo >> /tmp/runs; exec sleep 1000");
    bundle.create().fine();
    let codes = std::thread::scope(|scope| {
        let start = || scope.spawn(|| bundle.oci(&["start", &bundle.id]).code);
        [start(), start(), start()].map(|thread| thread.join().unwrap())
    });
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    // Even paused it can be deleted.
    bundle.wait_for("it runs", || bundle.says("runs"));
    bundle.oci(&["pause", &bundle.id]).fine();
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
    bundle.is_gone();
}

#[test]
fn what_cannot_be_created_or_started_says_so() {
    // As an engine wants it: told by `create`, in words of which it makes exit codes of its own.
    for (command, code, words) in [
        ("absent", 127, "exec: \"absent\": executable file not found in $PATH"),
        ("/absent", 127, "exec: \"/absent\": no such file or directory"),
        ("/bin/busybox/absent", 127, "no such file or directory"),
        ("/tmp", 126, "permission denied"),
        ("/config", 126, "permission denied"),
    ] {
        let bundle = Bundle::new("true");
        fs::write(bundle.path("rootfs/config"), "").unwrap();
        bundle.configure(|spec| spec["process"]["args"] = json!([command]));
        bundle.create().fails(code, words);
        bundle.is_gone();
    }
    // What only the kernel finds out is told by `start`.
    let bundle = Bundle::new("true");
    fs::write(bundle.path("rootfs/script"), "#!/absent\n").unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.path("rootfs/script"), permissions).unwrap();
    bundle.configure(|spec| spec["process"]["args"] = json!(["/script"]));
    bundle.create().fine();
    bundle.oci(&["start", &bundle.id]).fails(127, "/script");
    bundle.delete();
    for (field, value, words) in [
        (
            "mounts",
            json!([{"destination": "relative", "type": "proc", "source": "proc"}]),
            "relative",
        ),
        ("hooks", json!({"prestart": [{"path": "/bin/false"}]}), "hooks.prestart[0]"),
        ("ociVersion", json!("2.0.0"), "2.0.0"),
        ("root", json!({"path": "absent"}), "absent"),
    ] {
        let bundle = Bundle::new("true");
        bundle.configure(|spec| spec[field] = value);
        bundle.create().fails(1, words);
        bundle.is_gone();
    }
    let folder = bundle.dir.path().to_str().unwrap();
    bundle.oci(&["create", "--bundle", folder, "../up"]).fails(1, "container id");
    bundle.oci(&["checkpoint", "--image-path", "/x", &bundle.id]).fails(1, "not there");
    bundle.oci(&["restore", &bundle.id]).fails(1, "not there");
}

#[test]
fn a_container_that_was_created_is_deleted_by_force() {
    let bundle = Bundle::new("true");
    bundle.create().fine();
    bundle.oci(&["kill", &bundle.id, "9"]).fine();
    bundle.wait_for("it stops", || bundle.status() == "stopped");
    bundle.oci(&["start", &bundle.id]).fails(1, "it is stopped");
    bundle.oci(&["delete", &bundle.id]).fine();
    bundle.create().fine();
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
    bundle.is_gone();
}

#[test]
fn run_is_all_of_it_and_passes_signals_on() {
    let bundle = Bundle::new("echo out; echo err >&2; exit 6");
    let folder = bundle.dir.path().to_str().unwrap();
    let answer = bundle.oci(&["run", "--bundle", folder, &bundle.id]);
    assert_eq!(
        (answer.code, answer.output.as_str(), answer.errors.as_str()),
        (6, "out\n", "err\n")
    );
    bundle.is_gone();

    let bundle = Bundle::new("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done");
    let folder = bundle.dir.path().to_str().unwrap();
    let mut command = bundle.command(&["run", "--bundle", folder, &bundle.id]);
    let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), bundle.status().as_str()), ("ready\n", "running"));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(running.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(9));
    bundle.is_gone();
}

#[test]
fn a_terminal_goes_over_the_console_socket() {
    let bundle = Bundle::new("tty; stty size; read line; echo got $line; exec sleep 1000");
    bundle.configure(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    });
    bundle.create().fails(1, "--console-socket");
    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    let folder = bundle.dir.path().to_str().unwrap();
    let socket = path.to_str().unwrap();
    bundle.oci(&["create", "--bundle", folder, "--console-socket", socket, &bundle.id]).fine();
    let mut master = File::from(received(&listener));
    bundle.oci(&["start", &bundle.id]).fine();
    let mut output = BufReader::new(master.try_clone().unwrap());
    let mut line = String::new();
    while !line.contains("30 90") {
        assert!(output.read_line(&mut line).unwrap() > 0, "{line}");
    }
    assert_eq!(line, "/dev/pts/0\r\n30 90\r\n");
    master.write_all(b"words\n").unwrap();
    while !line.contains("got words") {
        assert!(output.read_line(&mut line).unwrap() > 0, "{line}");
    }

    let words = ["exec", "--tty", "--detach", "--console-socket", socket, &bundle.id, "tty"];
    bundle.oci(&words).fine();
    let mut said = Vec::new();
    // EIO at its end.
    let _ = File::from(received(&listener)).read_to_end(&mut said);
    assert_eq!(String::from_utf8(said).unwrap(), "/dev/pts/1\r\n");
}

fn received(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let mut bytes = [0; 64];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!(i32);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    let Some(ControlMessageOwned::ScmRights(descriptors)) = message.cmsgs().unwrap().next() else {
        panic!("no descriptor came");
    };
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptors[0]) }
}

#[test]
fn descriptors_are_passed_on_where_that_is_asked() {
    let bundle = Bundle::new("true");
    let sh = |words: String| {
        let script = format!(
            "exec {} --root {}/state {words}",
            support::runtime().display(),
            bundle.dir.path().display()
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.success(), out, err)
    };
    let (folder, id) = (bundle.dir.path().display(), &bundle.id);
    let (fine, _, errors) =
        sh(format!("create --preserve-fds 2 --bundle {folder} {id} 3</etc/hosts 4>&-"));
    assert!(!fine && errors.contains("descriptor 4"), "{errors}");
    bundle.configure(|spec| {
        let script = "busybox readlink /proc/self/fd/3; busybox ls /proc/self/fd; exit 0";
        spec["process"]["args"] = json!(["sh", "-c", script]);
    });
    let run = |redirect: &str| sh(format!("run --bundle {folder} {redirect}"));
    // The listing's own descriptor is one more.
    let (fine, output, errors) = run(&format!("--preserve-fds 1 {id} 3</etc/hosts"));
    assert_eq!((fine, output.as_str()), (true, "/etc/hosts\n0\n1\n2\n3\n4\n"), "{errors}");
    let (fine, output, errors) = run(&format!("{id} 3</etc/hosts"));
    assert_eq!((fine, output.as_str()), (true, "0\n1\n2\n3\n"), "{errors}");
}

#[test]
fn a_further_process_is_what_the_options_say() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create().fine();
    bundle.oci(&["start", &bundle.id]).fine();
    let script = "busybox id -G; busybox grep -e CapEff -e NoNewPrivs /proc/self/status";
    let exec = |options: &[&str]| {
        bundle.oci(&[&["exec"], options, &[&bundle.id, "sh", "-c", script]].concat()).fine()
    };
    let plain = exec(&[]);
    let more = exec(&["--cap", "CAP_SYS_PTRACE", "-g", "5", "-g", "6", "--no-new-privs"]);
    let effective = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap().to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    };
    assert_eq!(effective(&plain) | 1 << 19, effective(&more), "{plain} {more}");
    assert!(more.starts_with("0 5 6\n") && more.contains("NoNewPrivs:\t1"), "{more}");
    bundle.oci(&["exec", "--cap", "CAP_NONE", &bundle.id, "true"]).fails(1, "CAP_NONE");
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
    bundle.is_gone();
}
