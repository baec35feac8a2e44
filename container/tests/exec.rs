//! Further processes in what runs already: they are within the same walls, and nothing inside gets hold of them on
//! their way in. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;

use isolab_container::oci::{BoxBuilder, Process};
use isolab_container::{
    Container, Error, Executed, Handle, HostProcess, Instance, Stdio, Stream, WindowSize,
    default_process, resize,
};

use support::{Fixture, PATH, capture, read_all};

/// A container and a host process that wait.
fn both(fixtures: &[Fixture; 2], args: &[&str]) -> [Instance; 2] {
    let container = Container::create(fixtures[0].config(args)).unwrap().into_instance();
    let process = HostProcess::create(fixtures[1].host_config(args)).unwrap().into_instance();
    [container, process].map(|mut instance| {
        instance.start().unwrap();
        instance
    })
}

fn process(args: &[&str]) -> Process {
    default_process(args.iter().map(|arg| (*arg).to_owned()).collect(), vec![PATH.to_owned()])
}

/// Starts a shell's script, and collects what it says.
fn shell(handle: &Handle, script: &str) -> (i32, String) {
    let mut stdio = Stdio::null();
    let output = capture(&mut stdio);
    let executed = handle.exec(&process(&["sh", "-c", script]), stdio).unwrap();
    let output = read_all(output);
    (executed.wait().unwrap().code(), output)
}

#[test]
fn it_is_within_the_same_walls() {
    let fixtures = [Fixture::new(), Fixture::new()];
    for instance in both(&fixtures, &["sleep", "1000"]) {
        let handle = instance.handle().unwrap();
        let script = "for ns in user mnt cgroup uts ipc net pid; do busybox readlink /proc/self/ns/$ns; done; exit 7";
        let (code, output) = shell(&handle, script);
        let namespace = |ns| {
            let link = fs::read_link(format!("/proc/{}/ns/{ns}", instance.pid())).unwrap();
            format!("{}\n", link.display())
        };
        let expected =
            ["user", "mnt", "cgroup", "uts", "ipc", "net", "pid"].map(namespace).concat();
        assert_eq!((code, output), (7, expected));
        // Limits are the whole's, in all hierarchies.
        let mut sleeping = handle.exec(&process(&["sleep", "1000"]), Stdio::null()).unwrap();
        let cgroups = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(cgroups(sleeping.pid()), cgroups(instance.pid()));
        let root = |pid: i32| fs::read_link(format!("/proc/{pid}/root")).unwrap();
        assert_eq!(root(sleeping.pid()), root(instance.pid()));
        assert!(sleeping.terminal().is_none());
        sleeping.signal(libc::SIGTERM).unwrap();
        assert_eq!((sleeping.wait().unwrap().code(), sleeping.wait().unwrap().code()), (143, 143));
        instance.remove().unwrap();
    }
}

#[test]
fn its_rights_are_those_of_a_first_process() {
    let fixture = Fixture::new();
    let script = "busybox grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig(Blk|Ign))' /proc/self/status; busybox cut -d' ' -f6,7 /proc/self/stat; umask";
    let first = fixture.shell(&format!("{script}; ls /proc/self/fd"));
    let container = Container::create(fixture.config(&["sleep", "1000"])).unwrap();
    let handle = container.handle().unwrap();
    let (_, further) = shell(&handle, &format!("{script}; ls /proc/self/fd"));
    // The session is another, of its own.
    let strip = |text: &str| {
        let lines = text.lines().filter(|line| line.split(' ').count() != 2);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(further.contains("Seccomp:\t2") && further.contains("NoNewPrivs:\t1"), "{further}");
    assert_eq!(strip(&first.output), strip(&further));
}

#[test]
fn another_user_directory_and_environment() {
    let fixtures = [Fixture::new(), Fixture::new()];
    for instance in both(&fixtures, &["sleep", "1000"]) {
        let mut process = process(&["sh", "-c", "id -u; id -g; busybox pwd; echo $GREETING"]);
        process.user_mut().set_uid(1000).set_gid(1001);
        process.set_cwd("/tmp".into());
        process.set_env(Some(vec![PATH.to_owned(), "GREETING=hello".to_owned()]));
        let mut stdio = Stdio::null();
        let output = capture(&mut stdio);
        let executed = instance.handle().unwrap().exec(&process, stdio).unwrap();
        assert_eq!(read_all(output), "1000\n1001\n/tmp\nhello\n");
        assert_eq!(executed.wait().unwrap().code(), 0);
    }
}

#[test]
fn what_cannot_be_executed_says_so_and_a_container_that_has_ended_too() {
    let fixtures = [Fixture::new(), Fixture::new()];
    for mut instance in both(&fixtures, &["sleep", "1000"]) {
        let handle = instance.handle().unwrap();
        for (command, code) in [("absent", 127), ("/bin", 126)] {
            let error = handle.exec(&process(&[command]), Stdio::null()).unwrap_err();
            assert_eq!(error.exit_code(), code, "{error}");
        }
        let mut elsewhere = process(&["true"]);
        elsewhere.set_cwd("/absent".into());
        let error = handle.exec(&elsewhere, Stdio::null()).unwrap_err().to_string();
        assert!(error.contains("working directory /absent"), "{error}");
        handle.signal(libc::SIGKILL).unwrap();
        instance.wait().unwrap();
        let error = handle.exec(&process(&["true"]), Stdio::null()).unwrap_err();
        assert!(matches!(error, Error::State { problem: "has ended", .. }), "{error}");
    }
}

#[test]
fn many_at_once_and_all_end_with_the_first() {
    let fixtures = [Fixture::new(), Fixture::new()];
    let [mut container, host] = both(&fixtures, &["sleep", "1000"]);
    let handle = container.handle().unwrap();
    let executed: Vec<Executed> = std::thread::scope(|scope| {
        let start = || handle.exec(&process(&["sleep", "1000"]), Stdio::null()).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(handle.processes().unwrap().len(), 9);
    // Our own processes are where they were.
    let child = std::process::Command::new("readlink").arg("/proc/self/ns/pid").output().unwrap();
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(String::from_utf8(child.stdout).unwrap().trim_end(), own.to_str().unwrap());
    container.handle().unwrap().signal(libc::SIGKILL).unwrap();
    container.wait().unwrap();
    for process in executed {
        assert_eq!(process.wait().unwrap().code(), 137);
    }
    drop(host);
}

/// Looks at every process there is, over and over, and tells what it gets hold of that is not of the image. The
/// trampoline and its channel are to be seen: by then it has the container's rights, and nothing of the runtime's.
const ATTACK: &str = "echo ready
while [ ! -e /tmp/stop ]; do
  for p in /proc/[0-9]*; do
    exe=$(busybox readlink $p/exe 2>/dev/null) && case $exe in /bin/busybox) ;; *isolab-trampoline*) ;; *) echo exe $exe;; esac
    [ $p = /proc/$$ ] || for f in $p/fd/*; do busybox readlink $f; done 2>/dev/null | busybox grep -v -e pipe: -e /dev/null -e ^/proc -e socket:
    root=$(busybox readlink $p/cwd 2>/dev/null) && case $root in /) ;; *) echo cwd $root;; esac
  done
done
echo done";

#[test]
fn nothing_inside_gets_hold_of_a_process_on_its_way_in() {
    let fixture = Fixture::new();
    // Open in every clone until it closes it.
    let _marker = fs::File::open("/etc/passwd").unwrap();
    let mut config = fixture.config(&["sh", "-c", ATTACK]);
    let mut output = BufReader::new(fs::File::from(capture(&mut config.stdio)));
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    let handle = container.handle().unwrap();
    for _ in 0..100 {
        handle.exec(&process(&["true"]), Stdio::null()).unwrap().wait().unwrap();
    }
    shell(&handle, "echo > /tmp/stop");
    let mut seen = String::new();
    output.read_to_string(&mut seen).unwrap();
    assert_eq!((ready.as_str(), seen.as_str()), ("ready\n", "done\n"));
}

fn with_terminal(args: &[&str]) -> Process {
    let mut process = process(args);
    process.set_terminal(Some(true));
    let size = BoxBuilder::default().height(24u64).width(80u64).build().unwrap();
    process.set_console_size(Some(size));
    process
}

/// Reads until a line ends with `end`.
fn read_to(master: &mut impl BufRead, end: &str) -> String {
    let mut line = String::new();
    while !line.trim_end().ends_with(end) {
        assert!(master.read_line(&mut line).unwrap() > 0, "{line:?} ends");
    }
    line
}

#[test]
fn a_terminal_of_its_own_follows_its_window() {
    let fixtures = [Fixture::new(), Fixture::new()];
    let script = "trap 'busybox stty size; exit 5' WINCH; busybox tty; busybox stty size; busybox readlink /proc/self/fd/2; echo ready; while :; do read line; done";
    for instance in both(&fixtures, &["sleep", "1000"]) {
        let mut executed = instance
            .handle()
            .unwrap()
            .exec(&with_terminal(&["sh", "-c", script]), Stdio::null())
            .unwrap();
        let master = executed.terminal().unwrap();
        assert!(executed.terminal().is_none());
        let mut output = BufReader::new(fs::File::from(master.try_clone().unwrap()));
        let said = read_to(&mut output, "ready");
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("/dev/pts/") && lines[1..3] == ["24 80", lines[0]], "{said}");
        resize(&master, WindowSize { rows: 50, columns: 132 }).unwrap();
        // Until it looks again: busybox's shell runs a trap between commands.
        fs::File::from(master.try_clone().unwrap()).write_all(b"\n").unwrap();
        read_to(&mut output, "50 132");
        assert_eq!(executed.wait().unwrap().code(), 5);
    }
}

#[test]
fn a_first_process_has_its_terminal_as_console_too() {
    let fixture = Fixture::new();
    let script = "busybox tty; [ -c /dev/console ] && echo console > /dev/console; busybox stty size; busybox stat -c %u $(busybox tty); echo $(ls /dev/pts)";
    let mut config = fixture.config(&["sh", "-c", script]);
    let process = config.spec.process_mut().as_mut().unwrap();
    *process = with_terminal(&["sh", "-c", script]);
    process.user_mut().set_uid(1000).set_gid(1000);
    let mut container = Container::create(config).unwrap();
    let master = container.terminal().unwrap();
    container.start().unwrap();
    let output = read_until_hangup(master);
    assert_eq!(container.wait().unwrap().code(), 0, "{output}");
    assert_eq!(
        output.lines().collect::<Vec<_>>()[..5],
        ["/dev/pts/0", "console", "24 80", "1000", "0 ptmx"],
        "{output}"
    );
}

fn read_until_hangup(master: OwnedFd) -> String {
    let mut output = Vec::new();
    // At the end of the last process a master reads as EIO (pty(7)).
    let error = fs::File::from(master).read_to_end(&mut output).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    String::from_utf8(output).unwrap()
}

#[test]
fn a_container_without_devpts_has_no_terminal() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["true"]);
    let mut mounts = config.spec.mounts().clone().unwrap();
    mounts.retain(|mount| !mount.destination().ends_with("pts"));
    config.spec.set_mounts(Some(mounts));
    *config.spec.process_mut().as_mut().unwrap() = with_terminal(&["true"]);
    let error = Container::create(config).unwrap_err().to_string();
    assert!(error.contains("/dev/pts"), "{error}");
    // Nor one that has something else there, which must not be opened: this would wait for a writer.
    fs::create_dir_all(fixture.path("rootfs/dev/pts")).unwrap();
    nix::unistd::mkfifo(&fixture.path("rootfs/dev/pts/ptmx"), nix::sys::stat::Mode::S_IRWXU)
        .unwrap();
    let mut config = fixture.config(&["true"]);
    config.spec.set_mounts(None);
    *config.spec.process_mut().as_mut().unwrap() = with_terminal(&["true"]);
    let error = Container::create(config).unwrap_err().to_string();
    assert!(error.contains("/dev/pts"), "{error}");
}

#[test]
fn a_pause_holds_everything_and_ends() {
    let fixture = Fixture::new();
    for args in [["sh", "-c", "busybox cat & exec cat"]] {
        let mut config = fixture.config(&args);
        let output = capture(&mut config.stdio);
        let (input, mut keys) = std::io::pipe().unwrap();
        config.stdio.stdin = Stream::Descriptor(input.into());
        let mut container = Container::create(config).unwrap();
        container.start().unwrap();
        let mut output = BufReader::new(fs::File::from(output));
        keys.write_all(b"before\n").unwrap();
        assert_eq!(read_to(&mut output, "before"), "before\n");
        let handle = container.handle().unwrap();
        for _ in 0..2 {
            handle.pause().unwrap();
            assert!(handle.is_paused());
        }
        keys.write_all(b"meanwhile\n").unwrap();
        let mut watched = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(output.get_ref()),
            nix::poll::PollFlags::POLLIN,
        )];
        let patience = nix::poll::PollTimeout::from(200u8);
        assert_eq!(nix::poll::poll(&mut watched, patience).unwrap(), 0, "it is not paused");
        handle.resume().unwrap();
        assert!(!handle.is_paused());
        assert_eq!(read_to(&mut output, "meanwhile"), "meanwhile\n");
        // One that is paused can be removed.
        handle.pause().unwrap();
        container.remove().unwrap();
        assert!(handle.pause().is_err() && handle.has_ended());
    }
}

#[test]
fn processes_are_told_with_their_ids_inside() {
    let fixtures = [Fixture::new(), Fixture::new()];
    for instance in both(&fixtures, &["sh", "-c", "sleep 1000 & sleep 1001 & wait"]) {
        let handle = instance.handle().unwrap();
        let mut user = process(&["sleep", "1002"]);
        user.user_mut().set_uid(1234);
        let further = handle.exec(&user, Stdio::null()).unwrap();
        // The shell forks them when it comes to it.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let processes = loop {
            let found = handle.processes().unwrap();
            if found
                .iter()
                .filter(|one| one.arguments.first().is_some_and(|first| first == "sleep"))
                .count()
                == 3
            {
                break found;
            }
            assert!(std::time::Instant::now() < deadline, "{found:?}");
            std::thread::yield_now();
        };
        assert_eq!(processes[0].host_pid, instance.pid());
        assert_eq!(processes.len(), 4);
        let last = processes.iter().find(|one| one.host_pid == further.pid()).unwrap();
        assert_eq!(
            (last.uid, last.arguments.as_slice()),
            (1234, &["sleep".into(), "1002".into()][..])
        );
        assert!(processes[1..].iter().all(|one| one.host_pid > 1));
        let in_container = processes[0].pid == 1;
        assert_eq!(in_container, processes.iter().all(|one| one.pid < 50));
        let stats = handle.stats();
        if in_container {
            assert!(
                stats.cpu_usage_microseconds.unwrap() > 0
                    && stats.memory_current_bytes.unwrap() > 0
            );
            assert_eq!(stats.pids_current, Some(4));
            assert!(stats.block_read_bytes.is_some() && stats.block_written_bytes.is_some());
            assert_eq!(handle.network_bytes(), Some((0, 0)));
        } else {
            assert_eq!(handle.network_bytes(), None);
        }
    }
}

#[test]
fn a_signal_to_all_reaches_all() {
    let fixture = Fixture::new();
    let script = "trap 'echo first; exit 3' TERM; sh -c 'trap \"echo second; exit\" TERM; echo ready; while :; do sleep 0.01; done' & while :; do sleep 0.01; done";
    let mut config = fixture.config(&["sh", "-c", script]);
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    let mut output = BufReader::new(fs::File::from(output));
    read_to(&mut output, "ready");
    let handle = container.handle().unwrap();
    handle.signal_all(libc::SIGTERM).unwrap();
    assert_eq!(container.wait().unwrap().code(), 3);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("first"), "{rest}");
    assert!(!handle.is_paused());
}
