//! Ending a machine by signals, though its guest has the say over its workload: a guest may ignore
//! them, or never come up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use isolab_vmm::threads;

const SIGKILL: u8 = libc::SIGKILL as u8;

/// What becomes of the signals to a machine:
///
/// - before the guest has spoken, one that ends processes ends the machine;
/// - the first is passed on to the workload, and after SIGTERM the guest has a time limit;
/// - the second ends the machine, as SIGKILL does a process.
///
/// Others are passed on and nothing else.
pub(super) struct Signals<F, E> {
    forward: F,
    end: Arc<E>,
    asked: AtomicBool,
    timeout: Duration,
}

impl<F, E> Signals<F, E>
where
    F: Fn(u8) -> io::Result<()>,
    E: Fn(u8) + Send + Sync + 'static,
{
    /// `forward` sends to the workload, without waiting, and fails with `NotConnected` before the guest
    /// has spoken, with `BrokenPipe` when the workload has ended; `end` ends the machine.
    pub fn new(forward: F, end: E, timeout: Duration) -> Self {
        Self { forward, end: Arc::new(end), asked: AtomicBool::new(false), timeout }
    }

    /// A signal has come.
    ///
    /// # Errors
    /// It was not passed on.
    pub fn arrived(&self, signal: i32) -> io::Result<()> {
        let number = u8::try_from(signal).map_err(io::Error::other)?;
        let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&signal);
        if ends && self.asked.swap(true, Ordering::SeqCst) {
            (self.end)(SIGKILL);
            return Ok(());
        }
        match (self.forward)(number) {
            Err(error) if ends && error.kind() == io::ErrorKind::NotConnected => {
                (self.end)(number);
                Ok(())
            }
            result => {
                let has_ended =
                    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
                if signal == libc::SIGTERM && !has_ended {
                    self.start_timer();
                }
                result
            }
        }
    }

    fn start_timer(&self) {
        let (end, timeout) = (Arc::clone(&self.end), self.timeout);
        let body = move || {
            thread::sleep(timeout);
            end(SIGKILL);
        };
        if threads::builder("stop-timer").spawn(body).is_err() {
            (self.end)(SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const LONG: Duration = Duration::from_secs(60);

    type Forward = Box<dyn Fn(u8) -> io::Result<()>>;
    type End = Box<dyn Fn(u8) + Send + Sync>;

    /// What is passed on, and how the machine is ended.
    fn signals(
        timeout: Duration,
        answer: fn() -> io::Result<()>,
    ) -> (Signals<Forward, End>, Receiver<u8>, Receiver<u8>) {
        let (forwarded, passed_on) = channel();
        let (ended, ends) = channel();
        let forward: Forward = Box::new(move |signal| {
            forwarded.send(signal).unwrap();
            answer()
        });
        let end: End = Box::new(move |signal| ended.send(signal).unwrap_or_default());
        (Signals::new(forward, end, timeout), passed_on, ends)
    }

    #[test]
    fn the_first_is_passed_on_and_the_second_ends_the_machine() {
        for first in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
            for second in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
                let (signals, passed_on, ends) = signals(LONG, || Ok(()));
                signals.arrived(first).unwrap();
                assert_eq!(passed_on.try_iter().collect::<Vec<_>>(), [first as u8]);
                assert!(ends.try_recv().is_err());
                signals.arrived(second).unwrap();
                assert_eq!(ends.recv().unwrap(), 9);
            }
        }
    }

    #[test]
    fn a_guest_that_has_not_spoken_ends_at_once_by_that_signal() {
        let silent = || Err(io::ErrorKind::NotConnected.into());
        let (signals, _passed_on, ends) = signals(LONG, silent);
        assert!(signals.arrived(libc::SIGWINCH).is_err());
        assert!(ends.try_recv().is_err());
        signals.arrived(libc::SIGINT).unwrap();
        assert_eq!(ends.recv().unwrap(), 2);
    }

    #[test]
    fn a_guest_that_does_not_answer_sigterm_has_a_time_limit() {
        // Whether it was passed on or the guest reads nothing.
        let cases: [fn() -> io::Result<()>; 2] =
            [|| Ok(()), || Err(io::ErrorKind::WouldBlock.into())];
        for answer in cases {
            let (signals, _passed_on, ends) = signals(Duration::from_millis(1), answer);
            let _ = signals.arrived(libc::SIGTERM);
            assert_eq!(ends.recv_timeout(LONG).unwrap(), 9);
        }
    }

    #[test]
    fn a_workload_that_has_ended_is_not_waited_for() {
        let (signals, _passed_on, ends) =
            signals(Duration::from_millis(1), || Err(io::ErrorKind::BrokenPipe.into()));
        assert!(signals.arrived(libc::SIGTERM).is_err());
        drop(signals);
        // A timer would hold the other end, and use it.
        assert!(ends.recv_timeout(LONG).is_err());
    }

    #[test]
    fn signals_that_end_nothing_are_passed_on_however_many() {
        let (signals, passed_on, ends) = signals(LONG, || Ok(()));
        for _ in 0..5 {
            signals.arrived(libc::SIGUSR1).unwrap();
        }
        assert_eq!(passed_on.try_iter().count(), 5);
        assert!(ends.try_recv().is_err());
    }
}
