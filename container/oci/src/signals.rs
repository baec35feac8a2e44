//! Signals to a runtime that waits are the container's.

use std::thread;

use anyhow::{Context, Result};
use isolab_container::Handle;
use nix::sys::signal::{SigSet, Signal};

/// What a runtime learns about itself and its own children is not passed on.
const OURS: [Signal; 6] = [
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
];

/// Signals that wait.
pub struct Blocked(SigSet);

/// Has signals wait from here on, in this thread and those that it starts.
pub fn block() -> Result<Blocked> {
    let mut set = SigSet::all();
    OURS.into_iter().for_each(|signal| set.remove(signal));
    set.thread_block().context("cannot block signals")?;
    Ok(Blocked(set))
}

impl Blocked {
    /// Sends them to the container, those that wait first.
    pub fn pass_on(self, handle: Handle) -> Result<()> {
        let body = move || {
            while let Ok(signal) = self.0.wait() {
                // One that finds nobody came too late.
                let _ = handle.signal(signal as i32);
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(body);
        thread.map(drop).context("cannot start a thread")
    }
}
