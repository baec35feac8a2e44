//! The state of an instance while it is supervised: changed here, written down, waited for.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isolab_isolation::Controller;

use crate::state::{State, Status};

/// What the threads of a supervisor share of the instance.
pub(super) struct Record {
    folder: PathBuf,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    state: State,
    controller: Option<Arc<dyn Controller>>,
    /// Somebody wants it to end, and not be started again.
    is_stopped: bool,
    /// Nothing is left of it, and this is the code to tell.
    done: Option<i32>,
    /// The folder is about to go.
    is_closed: bool,
}

impl Record {
    pub(super) fn new(folder: PathBuf, state: State) -> Self {
        let inner =
            Inner { state, controller: None, is_stopped: false, done: None, is_closed: false };
        Self { folder, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is made in one step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Changes the state, and writes it down. A failure of that goes where our own errors go, and does
    /// not keep the workload from anything: who reads an older state corrects it when we are gone.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut inner = self.lock();
        if inner.is_closed {
            return;
        }
        change(&mut inner.state);
        if let Err(error) = inner.state.write(&self.folder) {
            let why = std::error::Error::source(&error).map_or(String::new(), |it| it.to_string());
            eprintln!("state: {error}: {why}");
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Writes nothing any more: what comes of the folder is another's.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// The workload runs, and is reached by this.
    pub(super) fn set_controller(&self, controller: Option<Arc<dyn Controller>>) {
        self.lock().controller = controller;
    }

    /// None while no workload runs.
    pub(super) fn controller(&self) -> Option<Arc<dyn Controller>> {
        self.lock().controller.clone()
    }

    /// It is to end, and not be started again.
    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Waits until somebody stops the instance, for so long; whether somebody did.
    pub(super) fn wait_stopped(&self, time: Duration) -> bool {
        self.wait(time, |inner| inner.is_stopped.then_some(())).is_some()
    }

    /// Nothing is left of the instance.
    pub(super) fn finish(&self, code: i32) {
        self.lock().done = Some(code);
        self.changed.notify_all();
    }

    /// Waits until nothing is left, for so long.
    pub(super) fn wait_finished(&self, time: Duration) -> Option<i32> {
        self.wait(time, |inner| inner.done)
    }

    /// Waits for another state than that of a run which began as this one; whether it is over.
    pub(super) fn wait_run_ended(&self, run: u32, time: Duration) -> bool {
        let ended = |inner: &Inner| {
            let state = &inner.state;
            (!state.status.is_running() || state.restarts != run).then_some(())
        };
        self.wait(time, ended).is_some()
    }

    fn wait<T>(&self, time: Duration, look: impl Fn(&Inner) -> Option<T>) -> Option<T> {
        let deadline = Instant::now().checked_add(time);
        let mut inner = self.lock();
        loop {
            if let Some(seen) = look(&inner) {
                return Some(seen);
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Record {
    /// Notes that it stands still, or goes on.
    pub(super) fn set_paused(&self, is_paused: bool) {
        let status = if is_paused { Status::Paused } else { Status::Running };
        self.change(|state| {
            if state.status.is_running() {
                state.status = status;
            }
        });
    }
}
