//! The connections, each of which asks one request after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::signal::ctrl_c;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Command;
use super::mix::{Kind, Mix};
use super::schedule::Schedule;
use super::tally::{Failure, Tally};
use crate::http::{Answer, Ask, Connection, HttpError};

/// What all connections share.
struct Work {
    target: SocketAddr,
    limit: Duration,
    mix: Mix,
    /// Which run this is, so that its orders are its own.
    run: u64,
    pace: Pace,
    /// Whether nobody wants more.
    is_enough: AtomicBool,
    /// The number of the next request.
    next: AtomicU64,
    tally: Mutex<Tally>,
}

enum Pace {
    /// A permit for each request that is due. What is not sent by the end never is.
    Open { schedule: Schedule, permits: Arc<Semaphore>, end: Instant },
    /// One after the other until then, or until there were so many.
    Closed { end: Option<Instant>, count: u64 },
}

/// Asks until the time is over or SIGINT comes, and gives what became of it.
///
/// # Errors
/// The runtime cannot be started.
pub fn run(target: SocketAddr, args: &Command) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(drive(target, args))
}

async fn drive(target: SocketAddr, args: &Command) -> Result<Tally> {
    let start = Instant::now();
    let end = start + args.duration;
    let pace = match args.rate {
        Some(rate) => {
            let schedule = Schedule::new(start, rate, args.duration);
            let permits = Arc::new(Semaphore::new(0));
            // One more for each connection, which then finds that there are no more requests.
            schedule.release(Arc::clone(&permits), args.connections as usize);
            // What waits by then gets as long as a request gets.
            Pace::Open { schedule, permits, end: end + args.timeout }
        }
        None => Pace::Closed {
            end: args.requests.is_none().then_some(end),
            count: args.requests.unwrap_or(u64::MAX),
        },
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let work = Arc::new(Work {
        target,
        limit: args.timeout,
        mix: args.mix.clone(),
        run: now.as_nanos() as u64,
        pace,
        is_enough: AtomicBool::new(false),
        next: AtomicU64::new(0),
        tally: Mutex::new(Tally::new(args.mix.kinds())),
    });
    let mut connections = JoinSet::new();
    for _ in 0..args.connections {
        connections.spawn(Arc::clone(&work).ask_again_and_again());
    }
    tokio::select! {
        ended = join(&mut connections) => ended?,
        interrupted = ctrl_c() => {
            interrupted.context("cannot take SIGINT")?;
            work.stop();
            join(&mut connections).await?;
        }
    }
    let mut tally = work.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
    tally.took = start.elapsed();
    Ok(tally)
}

async fn join(connections: &mut JoinSet<()>) -> Result<()> {
    while let Some(ended) = connections.join_next().await {
        ended.context("a connection")?;
    }
    Ok(())
}

/// A request's turn.
enum Turn {
    /// It counts from this moment.
    Ask(Instant),
    /// It is too late for it.
    Skip,
    /// There are no more.
    Over,
}

impl Work {
    async fn ask_again_and_again(self: Arc<Self>) {
        let mut connection = None;
        loop {
            let (number, turn) = self.turn().await;
            let since = match turn {
                Turn::Over => return,
                Turn::Skip => {
                    let (kind, _) = self.mix.request(self.run, number);
                    self.count(|tally| tally.failed(kind, Failure::NotSent));
                    continue;
                }
                Turn::Ask(since) => since,
            };
            let (kind, ask) = self.mix.request(self.run, number);
            let answer = self.ask(&mut connection, kind, &ask).await;
            self.record(kind, since, &answer);
        }
    }

    /// What is under way is answered, and counts; what is due and was not sent does not.
    fn stop(&self) {
        self.is_enough.store(true, Ordering::Relaxed);
        if let Pace::Open { permits, .. } = &self.pace {
            permits.close();
        }
    }

    async fn turn(&self) -> (u64, Turn) {
        let is_enough = || self.is_enough.load(Ordering::Relaxed);
        match &self.pace {
            Pace::Closed { end, count } => {
                let (number, now) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
                let is_due = number < *count && end.is_none_or(|end| now < end) && !is_enough();
                (number, if is_due { Turn::Ask(now) } else { Turn::Over })
            }
            Pace::Open { schedule, permits, end } => {
                // It is closed when it is enough.
                if let Ok(permit) = permits.acquire().await {
                    permit.forget();
                }
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let turn = if number >= schedule.count || is_enough() {
                    Turn::Over
                } else if Instant::now() > *end {
                    Turn::Skip
                } else {
                    Turn::Ask(schedule.due(number))
                };
                (number, turn)
            }
        }
    }

    /// Asks over the connection that there is, or a new one. A server may close what is idle at any moment, also just
    /// when it is used: what is idempotent is then asked again, once and over a new connection, as browsers do it
    /// (RFC 9112, 9.3.1).
    async fn ask(
        &self,
        connection: &mut Option<Connection>,
        kind: Kind,
        ask: &Ask,
    ) -> Result<Answer, HttpError> {
        if let Some(mut kept) = connection.take()
            && kept.is_open().await
        {
            match kept.ask(ask).await {
                Err(HttpError::Broken(_)) if ask.is_idempotent() => {
                    self.count(|tally| tally.asked_again(kind));
                }
                Err(error) => return Err(error),
                Ok(answer) => {
                    *connection = Some(kept);
                    return Ok(answer);
                }
            }
        }
        let mut new = Connection::open(self.target, self.limit).await?;
        let answer = new.ask(ask).await?;
        *connection = Some(new);
        Ok(answer)
    }

    fn record(&self, kind: Kind, since: Instant, answer: &Result<Answer, HttpError>) {
        self.count(|tally| match answer {
            Ok(answer) => {
                let time = answer.last.saturating_duration_since(since);
                tally.answered(kind, answer.status, answer.body.len(), time);
            }
            Err(error) => tally.failed(kind, error.into()),
        });
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: Command,
    }

    fn load(target: SocketAddr, words: &[&str]) -> Tally {
        let line = Line::parse_from([&["load", "--mix", "static"], words].concat());
        run(target, &line.command).unwrap()
    }

    /// Answers each request on each connection; `pause` holds up the whole server once, before the answer to the
    /// request with this number.
    fn serve(pause: Option<(u32, Duration)>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            for number in 0.. {
                if stream.read(&mut request).unwrap_or(0) == 0 {
                    return;
                }
                if let Some((_, time)) = pause.filter(|(at, _)| *at == number) {
                    thread::sleep(time);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            }
        });
        address
    }

    #[test]
    fn a_server_that_stands_still_is_seen_by_all_that_were_due_meanwhile() {
        let server = serve(Some((10, Duration::from_millis(500))));
        let words = ["--rate", "200", "--connections", "1", "--duration", "1s"];
        let tally = load(server, &words);
        let whole = tally.whole();
        assert_eq!((whole.times.len(), whole.errors()), (200, 0));
        // What was due in the first half of the pause waited for longer than its second half; with coordinated omission
        // there would be one slow answer.
        let slow = whole.times.count_between(250_000_000, u64::MAX);
        assert!(slow >= 50, "{slow}");
    }

    #[test]
    fn failures_are_told_apart() {
        // Whoever was there is gone.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tally = load(closed, &["--rate", "100", "--duration", "100ms"]);
        assert_eq!(tally.whole().failures, [(Failure::Connect, 10)].into());
        // Never answers: one waits, and what could not be sent by the end is told.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let words =
            ["--rate", "100", "--duration", "100ms", "--timeout", "200ms", "--connections", "1"];
        let failures = load(silent.local_addr().unwrap(), &words).whole().failures;
        assert_eq!(failures.values().sum::<u64>(), 10, "{failures:?}");
        assert!(
            failures[&Failure::TimedOut] >= 1 && failures[&Failure::NotSent] >= 1,
            "{failures:?}"
        );
    }

    #[test]
    fn what_was_closed_meanwhile_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
                let _ = stream.read(&mut request);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                // It reads the next request, and closes.
                let _ = stream.read(&mut request);
            }
        });
        let words = ["--rate", "100", "--duration", "100ms", "--connections", "1"];
        let whole = load(server, &words).whole();
        assert_eq!((whole.times.len(), whole.errors()), (10, 0), "{:?}", whole.failures);
        assert_eq!(whole.asked_again, 9);
    }

    #[test]
    fn a_closed_loop_ends() {
        let tally = load(serve(None), &["--connections", "1", "--duration", "100ms"]);
        let whole = tally.whole();
        assert!(!whole.times.is_empty() && whole.errors() == 0, "{:?}", whole.failures);
    }

    #[test]
    fn a_number_of_requests_is_asked_whatever_time_it_takes() {
        let server = serve(Some((3, Duration::from_millis(200))));
        let whole = load(server, &["--connections", "1", "--requests", "7"]).whole();
        assert_eq!((whole.times.len(), whole.errors()), (7, 0), "{:?}", whole.failures);
    }
}
