//! What the guest's init is asked of the guest. All of it is the guest's word.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use isolab_guest::control::{Session, Streams};
use isolab_guest::{GuestUsage, ProcessRecord, Service, Task};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use super::console_tail::ConsoleTail;
use super::exec::GuestProcess;
use super::streams::Carried;
use crate::controller::{ExecProcess, ProcessEntry};
use crate::error::IsolationError;
use crate::workload_status::WorkloadStatus;

/// How long a guest may take to tell of its processes.
const PROCESSES: Duration = Duration::from_secs(30);
/// How long for what is told beside figures of the host's, which come without it too.
const USAGE: Duration = Duration::from_secs(5);
/// How much a guest may say, in bytes.
const LONGEST_ANSWER: usize = 16 << 20;

/// The guest's processes.
///
/// # Errors
/// It does not answer within some time, or not what init would.
pub(super) fn processes(
    session: &Session,
    console: &ConsoleTail,
) -> Result<Vec<ProcessEntry>, IsolationError> {
    let records: Vec<ProcessRecord> = ask(session, console, Service::Processes, PROCESSES)?;
    Ok(records.into_iter().map(entry).collect())
}

/// What the guest uses of what it has. None of one that does not say so at once, such as one that is not up
/// yet.
pub(super) fn usage(session: &Session, console: &ConsoleTail) -> Option<GuestUsage> {
    if !session.is_up() {
        return None;
    }
    ask(session, console, Service::Usage, USAGE).ok()?.pop()
}

fn entry(record: ProcessRecord) -> ProcessEntry {
    ProcessEntry {
        pid: record.pid,
        parent: record.parent,
        host_pid: None,
        uid: record.uid,
        state: record.state,
        cpu_time: Duration::from_millis(record.cpu_time),
        elapsed: Duration::from_millis(record.elapsed),
        resident: record.resident,
        command: record.command,
    }
}

/// Has init do `service`, which answers in lines of JSON.
fn ask<T: DeserializeOwned>(
    session: &Session,
    console: &ConsoleTail,
    service: Service,
    time: Duration,
) -> Result<Vec<T>, IsolationError> {
    let host = || IsolationError::host("ask the guest's init");
    let (output, stdout) = io::pipe().map_err(host())?;
    let (errors, stderr) = io::pipe().map_err(host())?;
    let streams = Streams { stdin: None, stdout: stdout.into(), stderr: Some(stderr.into()) };
    let carried = Carried { streams, terminal: None, size: None, stdin: false };
    let deadline = Instant::now() + time;
    let process = GuestProcess::start(session, console, Task::Service(service), carried, time)?;
    let answer = read_all(output, deadline).map_err(host())?;
    let why = read_all(errors, deadline).map_err(host())?;
    let nonsense = |why: String| IsolationError::Init { why, console: console.text() };
    if process.wait()? != WorkloadStatus::Exited(0) {
        return Err(nonsense(String::from_utf8_lossy(&why).trim().to_owned()));
    }
    let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines = lines.map(serde_json::from_slice).collect::<Result<Vec<_>, _>>();
    lines.map_err(|_| nonsense("its answer is none".to_owned()))
}

/// Reads to the end.
fn read_all(mut source: PipeReader, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match source.read(&mut piece)? {
            0 => return Ok(all),
            count if all.len() + count > LONGEST_ANSWER => {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}
