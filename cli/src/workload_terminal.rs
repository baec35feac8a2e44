//! The caller's terminal and the workload's: what is typed goes there, what it shows comes here, and both are of one
//! size.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isolab_command::terminal::{self, Output, RawTerminal};
use isolab_isolation::{Controller, WindowSize};

/// How long the workload's last output may take to be shown. All of it is there when the workload has ended; at level
/// `process`, what it left behind can keep the terminal open.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Both terminals, connected. Dropping it restores the caller's.
pub struct WorkloadTerminal {
    shown: Receiver<()>,
    _raw: Option<RawTerminal>,
}

/// How large the workload's terminal is to be.
///
/// # Errors
/// There is no terminal to show it on, or, if it is `interactive`, none to type on.
pub fn size(interactive: bool) -> Result<WindowSize> {
    if !io::stdout().is_terminal() || interactive && !io::stdin().is_terminal() {
        bail!(
            "--tty needs a terminal: standard {} is none; leave -t out",
            if io::stdout().is_terminal() { "input" } else { "output" }
        );
    }
    let (columns, rows) = terminal::size().unwrap_or((80, 24));
    Ok(WindowSize { rows, columns })
}

/// Gives the workload's terminal the size of ours.
pub fn follow(controller: &dyn Controller) {
    if let Some((columns, rows)) = terminal::size() {
        // One that has ended needs none.
        let _ = controller.resize(WindowSize { rows, columns });
    }
}

impl WorkloadTerminal {
    /// Connects the terminals, ours raw if it is `interactive`.
    pub fn connect(workload: OwnedFd, interactive: bool) -> Result<Self> {
        let mut screen = File::from(workload);
        let mut keyboard = screen.try_clone().context("cannot duplicate a terminal")?;
        let raw = interactive.then(RawTerminal::open).transpose();
        let raw = raw.context("cannot make the terminal raw")?;
        if interactive {
            let typed = move || {
                let mut keys = [0; 4096];
                // Not by std, which waits for a whole buffer's worth in its own.
                while let Ok(count @ 1..) = nix::unistd::read(io::stdin(), &mut keys) {
                    if keyboard.write_all(&keys[..count]).is_err() {
                        break;
                    }
                }
            };
            start("keys", typed)?;
        }
        let (done, shown) = mpsc::channel();
        let show = move || {
            let mut bytes = [0; 16 << 10];
            // EIO is its end, too.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                if Output.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            drop(done);
        };
        start("screen", show)?;
        Ok(Self { shown, _raw: raw })
    }

    /// Waits until everything is shown, once the workload has ended.
    pub fn finish(self) {
        // Disconnected when it is.
        let _ = self.shown.recv_timeout(LAST_OUTPUT);
    }
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(body);
    thread.map(drop).context("cannot start a thread")
}
