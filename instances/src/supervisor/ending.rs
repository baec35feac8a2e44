//! How a workload is ended on request: that of a client, or a signal's to the supervisor.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use isolab_isolation::Controller;
use nix::sys::signal::{SigSet, Signal};

use super::record::Record;
use crate::config::Config;
use crate::error::InstanceError;
use crate::state::Status;

/// Ends the workload for good: by `signal`, and by SIGKILL when it takes longer than `timeout`.
pub(super) fn end(record: &Record, signal: i32, timeout: Duration) {
    record.stop();
    let run = record.state().restarts;
    let Some(controller) = record.controller() else { return };
    send(controller.as_ref(), signal);
    unpause(record, controller.as_ref());
    if !record.wait_run_ended(run, timeout) {
        send(controller.as_ref(), libc::SIGKILL);
        unpause(record, controller.as_ref());
    }
}

/// One that has ended meanwhile needs no signal.
pub(super) fn send(controller: &dyn Controller, signal: i32) {
    let _ = controller.signal(signal);
}

/// Lets a workload go on that is to end: what stands still takes no signal.
pub(super) fn unpause(record: &Record, controller: &dyn Controller) {
    if record.state().status == Status::Paused && controller.unpause().is_ok() {
        record.set_paused(false);
    }
}

/// Whoever ends us, as the host does before it goes down, ends the workload in its own way. From a
/// thread of its own, which has to be the first: all others inherit the mask.
///
/// # Errors
/// The host refused a thread.
pub(super) fn end_by_signals(record: &Arc<Record>, config: &Config) -> Result<(), InstanceError> {
    let signals: SigSet =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
    signals.thread_block().map_err(InstanceError::host("block signals"))?;
    let record = Arc::clone(record);
    let (signal, timeout) = (config.stop_signal, Duration::from_secs(config.stop_timeout));
    let body = move || {
        while signals.wait().is_err() {}
        end(&record, signal, timeout);
    };
    let thread = thread::Builder::new().name("signals".to_owned()).spawn(body);
    thread.map(drop).map_err(InstanceError::host("start a thread"))
}
