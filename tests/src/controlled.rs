//! What is done to an instance that runs: the same calls with the same answers at each level.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsFd;

use isolab_isolation::oci::Process;
use isolab_isolation::{Controller, Instance, Stdio, WindowSize, WorkloadStatus};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::dropped::{create_with, in_a_process_of_its_own, level_to_test};

/// Runs the ignored test `alone`, which calls [`alone`], in a process of its own.
pub fn is_the_same(level: &str, alone: &str) {
    in_a_process_of_its_own(level, alone);
}

/// The body of the ignored test: one instance, and all of it in turn.
pub fn alone() {
    let mut running = Running::start();
    running.further_processes();
    running.terminals();
    running.pauses();
    running.figures();
    running.ends();
    terminal_of_the_workload();
}

/// An instance that says again what it reads.
struct Running {
    instance: Box<dyn Instance>,
    controller: Box<dyn Controller>,
    input: io::PipeWriter,
    output: BufReader<PipeReader>,
}

fn name() -> String {
    format!("controlled-{}", std::process::id())
}

fn size(rows: u16, columns: u16) -> WindowSize {
    WindowSize { rows, columns }
}

/// A process as a command line would ask for it.
fn process(script: &str) -> Process {
    let mut process = Process::default();
    process
        .set_args(Some(["sh", "-c", script].map(str::to_owned).to_vec()))
        .set_env(Some(vec!["PATH=/bin".to_owned(), "GREETING=hello".to_owned()]))
        .set_cwd("/tmp".into())
        .set_rlimits(None)
        .set_capabilities(None);
    process
}

impl Running {
    fn start() -> Self {
        let (stdin, input) = io::pipe().expect("pipes can be made");
        let (output, stdout) = io::pipe().expect("pipes can be made");
        let stderr = stdout.try_clone().expect("there are descriptors");
        let stdin = Some(stdin.into());
        let stdio = Stdio::Streams { stdin, stdout: stdout.into(), stderr: stderr.into() };
        let mut instance = create_with(level_to_test(), &name(), "echo ready; exec cat", stdio);
        instance.start().expect("it starts");
        let controller = instance.controller().expect("there are descriptors");
        let mut running = Self { instance, controller, input, output: BufReader::new(output) };
        assert_eq!(running.line(), "ready\n");
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe can be read");
        line
    }

    fn exec(&self, process: Process, input: &[u8]) -> (WorkloadStatus, String, String) {
        let (stdin, mut writer) = io::pipe().expect("pipes can be made");
        let (mut output, stdout) = io::pipe().expect("pipes can be made");
        let (mut errors, stderr) = io::pipe().expect("pipes can be made");
        let stdin = Some(stdin.into());
        let stdio = Stdio::Streams { stdin, stdout: stdout.into(), stderr: stderr.into() };
        let executed = self.controller.exec(process, stdio).expect("it starts");
        writer.write_all(input).expect("it reads");
        drop(writer);
        let (mut said, mut complained) = (String::new(), String::new());
        output.read_to_string(&mut said).expect("text");
        errors.read_to_string(&mut complained).expect("text");
        (executed.wait().expect("it ends"), said, complained)
    }

    fn further_processes(&self) {
        let script = "cat; pwd; echo $GREETING; echo wrong >&2; exit 9";
        let answer = self.exec(process(script), b"input\n");
        let expected = ("input\n/tmp\nhello\n".to_owned(), "wrong\n".to_owned());
        assert_eq!(answer, (WorkloadStatus::Exited(9), expected.0, expected.1));
        let mut user = process("id -u; id -g");
        user.user_mut().set_uid(1234).set_gid(2345);
        assert_eq!(self.exec(user, b"").1, "1234\n2345\n");
        for (command, code) in [("/absent", 127), ("/tmp", 126)] {
            let mut process = process("");
            process.set_args(Some(vec![command.to_owned()]));
            let error = self.controller.exec(process, Stdio::Inherit { stdin: false });
            assert_eq!(error.err().expect("it cannot be executed").exit_code(), code);
        }
        // Signals reach it while somebody waits; what is dropped is gone.
        let sleeping = self
            .controller
            .exec(process("exec sleep 1000"), Stdio::Inherit { stdin: false })
            .expect("it starts");
        let ended = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| sleeping.wait().expect("it ends"));
            sleeping.signal(libc::SIGTERM).expect("it is there");
            waiting.join().expect("no panic")
        });
        assert_eq!(ended, WorkloadStatus::Killed(15));
        let stdio = Stdio::Inherit { stdin: false };
        drop(self.controller.exec(process("exec sleep 1000"), stdio).expect("it starts"));
        assert_eq!(self.controller.processes().expect("they are known").len(), 1);
    }

    fn terminals(&self) {
        let script = "trap 'stty size; exit 5' WINCH; [ -t 0 ] && stty size; echo ready; while :; do read line; done";
        let stdio = Stdio::Terminal(size(24, 80));
        let mut executed = self.controller.exec(process(script), stdio).expect("it starts");
        let terminal = File::from(executed.terminal().expect("it has a terminal"));
        let mut output = BufReader::new(terminal.try_clone().expect("there are descriptors"));
        assert_eq!(until(&mut output, "ready"), "24 80\r\nready\r\n");
        executed.resize(size(50, 132)).expect("it has a terminal");
        // busybox's shell runs a trap between commands.
        (&terminal).write_all(b"\n").expect("it reads");
        until(&mut output, "50 132");
        assert_eq!(executed.wait().expect("it ends"), WorkloadStatus::Exited(5));
        assert!(self.controller.resize(size(1, 1)).is_err(), "the workload has no terminal");
    }

    fn pauses(&mut self) {
        self.controller.pause().expect("it can be paused");
        self.input.write_all(b"meanwhile\n").expect("there is room");
        let mut watched = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::from(200u8);
        assert_eq!(poll(&mut watched, patience), Ok(0), "it goes on all the same");
        self.controller.unpause().expect("it goes on");
        assert_eq!(self.line(), "meanwhile\n");
    }

    fn figures(&self) {
        let processes = self.controller.processes().expect("they are known");
        let [first] = processes.as_slice() else { panic!("{processes:?}") };
        assert_eq!((first.uid, first.command.as_slice()), (0, &["cat".to_owned()][..]));
        self.controller.stats().expect("it is known");
    }

    fn ends(mut self) {
        self.controller.signal(libc::SIGKILL).expect("it is there");
        assert_eq!(self.instance.wait().expect("it ends"), WorkloadStatus::Killed(9));
        let late = self.controller.exec(process("true"), Stdio::Inherit { stdin: false });
        assert!(late.is_err(), "it has ended");
        self.instance.remove().expect("it goes");
    }
}

fn terminal_of_the_workload() {
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && stty size; read line; stty size; echo $line";
    let mut instance =
        create_with(level_to_test(), &name(), script, Stdio::Terminal(size(30, 100)));
    let terminal = File::from(instance.terminal().expect("it has a terminal"));
    instance.start().expect("it starts");
    let mut output = BufReader::new(terminal.try_clone().expect("there are descriptors"));
    assert_eq!(until(&mut output, "30 100"), "30 100\r\n");
    let controller = instance.controller().expect("there are descriptors");
    controller.resize(size(31, 101)).expect("it has a terminal");
    (&terminal).write_all(b"typed\n").expect("it reads");
    assert_eq!(until(&mut output, "31 101"), "typed\r\n31 101\r\n");
    assert_eq!(until(&mut output, "typed"), "typed\r\n");
    assert_eq!(instance.wait().expect("it ends"), WorkloadStatus::Exited(0));
    instance.remove().expect("it goes");
}

/// Reads until a line ends with `end`.
fn until(output: &mut impl BufRead, end: &str) -> String {
    let mut text = String::new();
    while !text.trim_end().ends_with(end) {
        assert!(output.read_line(&mut text).expect("it can be read") > 0, "{text:?} ends");
    }
    text
}
