//! One output stream of a process, on its way to where the host wants it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use isolab_protocol::OUTPUT_WINDOW;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::threads;

/// The guest hears of what was passed on by quarters of its window.
const CREDIT_STEP: usize = OUTPUT_WINDOW / 4;

/// Hears what becomes of an output.
pub(super) trait Listener: Send + Sync + 'static {
    /// So many bytes more have been written.
    fn passed_on(&self, count: usize);

    /// Nobody takes it any more.
    fn refused(&self);

    /// The thread has nothing more to write, and ends.
    fn done(&self);
}

/// What waits to be written, at most [`OUTPUT_WINDOW`], and the thread that writes it, from the first byte on.
#[derive(Debug)]
pub(super) struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Until the thread has it, or nothing more will come.
    target: Option<File>,
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Nothing more comes.
    finished: bool,
    /// Nobody takes it any more.
    refused: bool,
    /// There is a thread, and it has not ended.
    is_busy: bool,
}

/// The guest sent more than it was told there is room for.
#[derive(Debug)]
pub(super) struct Overrun;

impl Output {
    pub fn new(target: OwnedFd) -> Arc<Self> {
        let state = State {
            target: Some(File::from(target)),
            pieces: VecDeque::new(),
            bytes: 0,
            finished: false,
            refused: false,
            is_busy: false,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panics here does so before it changes anything.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a piece, without waiting; `listener` is for the thread, where there is none yet.
    pub fn push(self: &Arc<Self>, piece: Vec<u8>, listener: impl Listener) -> Result<(), Overrun> {
        let mut state = self.state();
        if state.refused || piece.is_empty() {
            return Ok(());
        }
        if state.bytes + piece.len() > OUTPUT_WINDOW {
            return Err(Overrun);
        }
        state.bytes += piece.len();
        state.pieces.push_back(piece);
        drop(state);
        self.begin(listener);
        self.changed.notify_one();
        Ok(())
    }

    /// Starts the thread, unless it has been. For a stream that is sure to have something to write this is
    /// better done before: whoever waits for the first byte need not wait for the thread.
    pub fn begin(self: &Arc<Self>, listener: impl Listener) {
        let mut state = self.state();
        let Some(target) = state.target.take() else { return };
        let (output, listener) = (Arc::clone(self), Arc::new(listener));
        let own = Arc::clone(&listener);
        let write = move || {
            output.write(target, &*own);
            output.state().is_busy = false;
            own.done();
        };
        state.is_busy = true;
        if threads::builder("output").spawn(write).is_err() {
            // As if nobody took it.
            (state.refused, state.is_busy) = (true, false);
            state.pieces.clear();
            drop(state);
            listener.refused();
        }
    }

    /// Nothing more comes. The target is closed when everything is written.
    pub fn finish(&self) {
        let mut state = self.state();
        state.finished = true;
        state.target = None;
        self.changed.notify_one();
    }

    /// Whether something is still to be written. When that is over, the listener hears of it.
    pub fn is_busy(&self) -> bool {
        self.state().is_busy
    }

    /// The thread's part.
    fn write(&self, mut target: File, listener: &impl Listener) {
        let mut untold = 0;
        while let Some(piece) = self.next() {
            if write_all(&mut target, &piece).is_err() {
                let mut state = self.state();
                state.refused = true;
                state.pieces.clear();
                drop(state);
                return listener.refused();
            }
            self.state().bytes -= piece.len();
            untold += piece.len();
            if untold >= CREDIT_STEP {
                listener.passed_on(std::mem::take(&mut untold));
            }
        }
    }

    fn next(&self) -> Option<Vec<u8>> {
        let idle = |state: &mut State| state.pieces.is_empty() && !state.finished;
        let state = self.changed.wait_while(self.state(), idle);
        state.unwrap_or_else(PoisonError::into_inner).pieces.pop_front()
    }
}

/// Writes all of it, also to a descriptor that somebody made non-blocking.
fn write_all(target: &mut File, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match target.write(piece) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => piece = &piece[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(target.as_fd(), PollFlags::POLLOUT)];
                // Who is interrupted tries again.
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
