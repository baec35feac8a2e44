//! Looking whether a workload is well.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use isolab_images::Image;
use isolab_isolation::{Controller, ExecProcess, FurtherProcess, Stdio, oci};

use super::record::Record;
use crate::error::InstanceError;
use crate::health::HealthCheck;
use crate::state::{Check, Health, HealthStatus};
use crate::time::Timestamp;

/// How many checks are kept, and how much of their output, as Docker does.
const MAX_CHECKS: usize = 5;
const MAX_OUTPUT: u64 = 4096;

/// Checks the workload from a thread of its own as long as this run lasts.
pub(super) fn watch(
    check: HealthCheck,
    record: &Arc<Record>,
    controller: Arc<dyn Controller>,
    first: &oci::Process,
    image: &Image,
) -> Result<(), InstanceError> {
    let process = FurtherProcess { args: check.command.clone(), ..FurtherProcess::default() };
    let process = process.to_process(first, image)?;
    let record = Arc::clone(record);
    let body = move || {
        let run = record.state().restarts;
        let started = Instant::now();
        let pause = || {
            let status = record.state().health.map(|health| health.status).unwrap_or_default();
            pause(&check, status, started.elapsed())
        };
        while !record.wait_run_ended(run, pause()) {
            let result = run_once(&process, controller.as_ref(), check.timeout);
            let counts = started.elapsed() >= check.start_period;
            record.change(|state| {
                let health = state.health.get_or_insert_default();
                note(health, result, counts, check.retries);
            });
        }
    };
    let thread = thread::Builder::new().name("health".to_owned()).spawn(body);
    thread.map(drop).map_err(InstanceError::host("start a thread"))
}

/// Until the next check.
fn pause(check: &HealthCheck, status: HealthStatus, elapsed: Duration) -> Duration {
    let is_starting = status == HealthStatus::Starting && elapsed < check.start_period;
    check.start_interval.filter(|_| is_starting).unwrap_or(check.interval)
}

fn note(health: &mut Health, check: Check, counts: bool, retries: u32) {
    match check.exit_code {
        0 => (health.status, health.failing_streak) = (HealthStatus::Healthy, 0),
        _ if counts => {
            health.failing_streak += 1;
            if health.failing_streak >= retries.max(1) {
                health.status = HealthStatus::Unhealthy;
            }
        }
        _ => {}
    }
    health.log.push(check);
    let excess = health.log.len().saturating_sub(MAX_CHECKS);
    health.log.drain(..excess);
}

fn run_once(process: &oci::Process, controller: &dyn Controller, timeout: Duration) -> Check {
    let start = Timestamp::now();
    let (exit_code, output) = match attempt(process, controller, timeout) {
        Ok((Some(code), output)) => (code, output),
        Ok((None, _)) => (-1, format!("no answer within {} ms", timeout.as_millis())),
        Err(error) => (-1, error.to_string()),
    };
    Check { start, end: Timestamp::now(), exit_code, output }
}

/// The code, unless it was not in time, and the beginning of what it wrote.
fn attempt(
    process: &oci::Process,
    controller: &dyn Controller,
    timeout: Duration,
) -> Result<(Option<i32>, String), InstanceError> {
    let (reader, writer) = io::pipe().map_err(InstanceError::host("make a pipe"))?;
    let stderr = writer.try_clone().map_err(InstanceError::host("duplicate a pipe"))?;
    let stdio = Stdio::Streams { stdin: None, stdout: writer.into(), stderr: stderr.into() };
    let process: Arc<dyn ExecProcess> = controller.exec(process.clone(), stdio)?.into();
    let (sender, written) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = File::from(OwnedFd::from(reader));
        let mut output = Vec::new();
        // What was read before a failure is told.
        let _ = reader.by_ref().take(MAX_OUTPUT).read_to_end(&mut output);
        // The check may be over.
        let _ = sender.send(String::from_utf8_lossy(&output).into_owned());
        // The rest is read as well, so that the check does not wait.
        let _ = io::copy(&mut reader, &mut io::sink());
    });
    let (sender, ended) = mpsc::channel();
    let waited = Arc::clone(&process);
    thread::spawn(move || sender.send(waited.wait()));
    let Ok(status) = ended.recv_timeout(timeout) else {
        // It may just have ended.
        let _ = process.signal(libc::SIGKILL);
        return Ok((None, String::new()));
    };
    // What it left behind may have its output still; nobody waits for that.
    let output = written.recv_timeout(timeout.min(Duration::from_secs(1))).unwrap_or_default();
    Ok((Some(i32::from(status?.exit_code())), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_looked_at_more_often() {
        let seconds = Duration::from_secs;
        let mut check = HealthCheck::new(Vec::new());
        (check.start_period, check.start_interval) = (seconds(60), Some(seconds(1)));
        for (status, elapsed, expected) in [
            (HealthStatus::Starting, 0, 1),
            (HealthStatus::Starting, 59, 1),
            (HealthStatus::Starting, 60, 30),
            (HealthStatus::Healthy, 2, 30),
            (HealthStatus::Unhealthy, 2, 30),
        ] {
            assert_eq!(pause(&check, status, seconds(elapsed)), seconds(expected), "{status:?}");
        }
        check.start_interval = None;
        assert_eq!(pause(&check, HealthStatus::Starting, Duration::ZERO), seconds(30));
    }

    #[test]
    fn so_many_failures_in_a_row_make_it_unhealthy() {
        let mut health = Health::default();
        let check = |exit_code| Check { exit_code, ..Check::default() };
        for (code, counts, status, streak) in [
            (1, false, HealthStatus::Starting, 0),
            (0, false, HealthStatus::Healthy, 0),
            (1, true, HealthStatus::Healthy, 1),
            (-1, true, HealthStatus::Healthy, 2),
            (1, true, HealthStatus::Unhealthy, 3),
            (1, true, HealthStatus::Unhealthy, 4),
            (0, true, HealthStatus::Healthy, 0),
        ] {
            note(&mut health, check(code), counts, 3);
            assert_eq!((health.status, health.failing_streak), (status, streak));
        }
        assert_eq!(health.log.len(), MAX_CHECKS);
    }
}
