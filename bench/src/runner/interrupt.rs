//! The operator's wish to end a long run.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Says whether the run shall end. Once it does, it keeps saying so.
pub struct Interrupt {
    asks: Box<dyn FnMut() -> bool>,
    came: bool,
}

impl Interrupt {
    /// There is nobody who could wish for it.
    pub fn never() -> Self {
        Self::when(|| false)
    }

    /// It comes when `asks` says so.
    pub fn when(asks: impl FnMut() -> bool + 'static) -> Self {
        Self { asks: Box::new(asks), came: false }
    }

    /// The first SIGINT (Ctrl-C) or SIGTERM, which does not end this process then; the next one does. To be called
    /// before there are other threads. std gives children an empty mask, so that they hear theirs.
    ///
    /// # Errors
    /// There are too many files.
    pub fn by_signal() -> Result<Self, Errno> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let descriptor =
            SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self::when(move || {
            let came = matches!(descriptor.read_signal(), Ok(Some(_)));
            if came {
                eprintln!("isolab: ending after this turn; what was measured is kept");
                // Cannot fail for signals that exist; if it did, the next one would be waited for like the first.
                let _ = signals.thread_unblock();
            }
            came
        }))
    }

    /// Whether it has come.
    pub fn came(&mut self) -> bool {
        self.came = self.came || (self.asks)();
        self.came
    }
}
