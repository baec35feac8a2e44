//! What a level must carry between the streams of an instance's processes and its caller: all of it, both
//! ways, for several at once, and the news that nobody reads any more.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use isolab_isolation::oci::{Process, ProcessBuilder};
use isolab_isolation::{Controller, ExecProcess, Stdio, WindowSize, WorkloadStatus};

use crate::TIME_LIMIT;
use crate::dropped::{create_with, in_a_process_of_its_own, level_to_test};

const KIB: usize = 1024;

type Step = fn(&dyn Controller);

/// Runs the ignored test `alone`, which calls [`alone`], in a process of its own.
pub fn whole(level: &str, alone: &str) {
    in_a_process_of_its_own(level, alone);
}

/// The body of the ignored test.
pub fn alone() {
    let (stdio, mut streams) = streams();
    let script = "read x; echo got $x; echo err >&2; exec sleep 1000";
    let name = format!("carried-{}", std::process::id());
    let mut instance = create_with(level_to_test(), &name, script, stdio);
    let controller = instance.controller().expect("there are descriptors");
    instance.start().expect("it starts");
    streams.stdin.write_all(b"input\n").expect("the workload reads");
    assert_eq!(line(&mut streams.stdout), "got input\n");
    assert_eq!(line(&mut streams.stderr), "err\n");

    let controller = &*controller;
    let steps: [(&str, Step); 5] = [
        ("bytes both ways", bytes_pass_whole_both_ways),
        ("a slow reader", a_slow_reader_holds_up_nobody_else),
        ("nobody reads", who_writes_to_nobody_hears_of_it),
        ("a terminal", a_terminal_interrupts_and_hangs_up),
        ("nobody holds it", a_process_that_nobody_holds_goes),
    ];
    for (name, step) in steps {
        println!("{name}");
        step(controller);
    }

    let left = exec(controller, "sleep 1000");
    controller.signal(libc::SIGTERM).expect("the workload runs");
    assert_eq!(instance.wait().expect("it ends"), WorkloadStatus::Killed(15));
    assert_eq!(left.process.wait().expect("it ends, too"), WorkloadStatus::Killed(9));
    instance.remove().expect("nothing holds it");
}

/// Several at once.
fn bytes_pass_whole_both_ways(controller: &dyn Controller) {
    let sent: Vec<u8> = (0..300 * KIB as u32).map(|i| (i * 7 + (i >> 11)) as u8).collect();
    let running: Vec<_> = (0..4).map(|_| exec(controller, "cat")).collect();
    let threads = running.into_iter().map(|running| {
        let sent = sent.clone();
        let Running { process, mut stdin, mut stdout, .. } = running;
        thread::spawn(move || {
            let writer = thread::spawn({
                let sent = sent.clone();
                move || stdin.write_all(&sent).expect("cat reads")
            });
            let mut received = Vec::new();
            stdout.read_to_end(&mut received).expect("cat writes");
            writer.join().expect("it has written");
            assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
            assert_eq!(process.wait().expect("cat ends"), WorkloadStatus::Exited(0));
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("what came back is what was sent");
    }
}

fn a_slow_reader_holds_up_nobody_else(controller: &dyn Controller) {
    let mut slow = exec(controller, "head -c 1500k /dev/zero");
    // It has begun, and what it writes goes nowhere.
    slow.stdout.read_exact(&mut [0]).expect("it writes");
    assert_eq!(exec(controller, "echo quick").output(), "quick\n");
    let mut rest = Vec::new();
    slow.stdout.read_to_end(&mut rest).expect("it goes on");
    assert_eq!(rest.len(), 1500 * KIB - 1);
    assert_eq!(slow.process.wait().expect("it ends"), WorkloadStatus::Exited(0));
}

fn who_writes_to_nobody_hears_of_it(controller: &dyn Controller) {
    let Running { stdout, mut stderr, process, .. } = exec(controller, "yes; echo $? >&2");
    drop(stdout);
    assert_eq!(line(&mut stderr), "141\n");
    assert_eq!(process.wait().expect("it ends"), WorkloadStatus::Exited(0));
}

/// What types ^C is heard by who has the terminal, and who hangs up ends it.
fn a_terminal_interrupts_and_hangs_up(controller: &dyn Controller) {
    let start = |script: &str| {
        let size = WindowSize { rows: 24, columns: 80 };
        let mut process =
            controller.exec(process(script), Stdio::Terminal(size)).expect("it starts");
        let mut terminal = File::from(process.terminal().expect("it has one"));
        assert!(process.terminal().is_none(), "it is given away once");
        until(&mut terminal, "ready");
        (process, terminal)
    };
    let (process, mut terminal) = start("tty; echo ready; sleep 1000");
    terminal.write_all(b"\x03").expect("it is there");
    assert_eq!(process.wait().expect("it ends").exit_code(), 130);
    let (process, terminal) = start("echo ready; exec sleep 1000");
    drop(terminal);
    assert_eq!(process.wait().expect("it ends"), WorkloadStatus::Killed(1));
}

fn a_process_that_nobody_holds_goes(controller: &dyn Controller) {
    let running = exec(controller, "exec sleep 4242");
    let deadline = Instant::now() + TIME_LIMIT;
    let wait = |wanted: bool| loop {
        let processes = controller.processes().expect("they can be told");
        let listed = processes.iter().any(|p| p.command == ["sleep", "4242"]);
        if listed == wanted {
            break;
        }
        assert!(Instant::now() < deadline, "it is to be there: {wanted}; {processes:?}");
        thread::sleep(Duration::from_millis(20));
    };
    wait(true);
    drop(running);
    wait(false);
}

const PATH: &str = "PATH=/bin:/usr/bin";

/// A further process that runs, and our ends of its pipes.
struct Running {
    process: Box<dyn ExecProcess>,
    stdin: PipeWriter,
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Running {
    /// Standard output, with no input.
    fn output(self) -> String {
        let Self { process: _held, stdin, stdout, stderr: _unread } = self;
        drop(stdin);
        text(stdout)
    }
}

fn process(script: &str) -> Process {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let process = ProcessBuilder::default().args(args).cwd("/").env(vec![PATH.to_owned()]);
    process.build().expect("a process")
}

fn exec(controller: &dyn Controller, script: &str) -> Running {
    let (stdio, Streams { stdin, stdout, stderr }) = streams();
    let process = controller.exec(process(script), stdio).expect("it starts");
    Running { process, stdin, stdout, stderr }
}

struct Streams {
    stdin: PipeWriter,
    stdout: PipeReader,
    stderr: PipeReader,
}

fn streams() -> (Stdio, Streams) {
    let pipe = || io::pipe().expect("pipes can be made");
    let ((input, stdin), (stdout, output), (stderr, errors)) = (pipe(), pipe(), pipe());
    let stdio = Stdio::Streams {
        stdin: Some(OwnedFd::from(input)),
        stdout: output.into(),
        stderr: errors.into(),
    };
    (stdio, Streams { stdin, stdout, stderr })
}

fn text(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).expect("it is text");
    text
}

fn line(from: &mut impl Read) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') && from.read(&mut byte).expect("it can be read") == 1 {
        line.push(char::from(byte[0]));
    }
    line
}

/// Reads a terminal until `wanted` has come.
fn until(terminal: &mut File, wanted: &str) {
    let mut seen = String::new();
    let mut bytes = [0; 256];
    while !seen.contains(wanted) {
        let count = terminal.read(&mut bytes).unwrap_or(0);
        assert!(count > 0, "the terminal ended behind {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}
