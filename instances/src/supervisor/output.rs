//! A workload's streams: its output goes to the log and to whoever is attached, and what those send
//! is its input.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::InstanceError;
use crate::log::{LogWriter, Stream};
use crate::protocol::{Channel, Reply};

/// What is read at once, in bytes.
const PIECE: usize = 16 << 10;
/// How many pieces wait for one who is attached: 1 MiB.
const QUEUE: usize = 64;
/// How long the workload waits for one who is attached and does not read; then that one is let go.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long output may take to come that was written before the workload's end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What goes to one who is attached.
#[derive(Clone)]
enum Piece {
    /// Output.
    Data(Stream, Arc<[u8]>),
    /// The workload's end, to be told when the gate is open.
    End(i32, Arc<Gate>),
}

/// Opened once.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *lock(&self.0) = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.1.wait_while(lock(&self.0), |is_open| !*is_open);
        drop(shut);
    }
}

/// Clones share everything.
#[derive(Clone)]
pub(super) struct Output(Arc<Shared>);

struct Shared {
    log: Mutex<LogWriter>,
    attached: Mutex<Attached>,
    /// A client's thread has ended.
    served: Condvar,
    /// What the workload reads, as long as it runs and takes input.
    input: Mutex<Option<File>>,
    /// Of this run.
    gate: Mutex<Arc<Gate>>,
}

#[derive(Default)]
struct Attached {
    next: u64,
    clients: Vec<(u64, SyncSender<Piece>)>,
    /// How many have not had everything yet.
    served: usize,
}

/// The threads that read one run's output.
pub(super) struct Pumps(Vec<Receiver<()>>);

impl Output {
    pub(super) fn new(log: LogWriter) -> Self {
        Self(Arc::new(Shared {
            log: Mutex::new(log),
            attached: Mutex::default(),
            served: Condvar::new(),
            input: Mutex::default(),
            gate: Mutex::default(),
        }))
    }

    /// Reads the workload's output from here on, until its end.
    pub(super) fn pump(&self, streams: Vec<(Stream, OwnedFd)>) -> Result<Pumps, InstanceError> {
        *lock(&self.0.gate) = Arc::default();
        let mut pumps = Vec::new();
        for (stream, from) in streams {
            let (output, mut from) = (self.clone(), File::from(from));
            let (done, is_done) = sync_channel(1);
            let body = move || {
                let mut buffer = vec![0; PIECE];
                loop {
                    match from.read(&mut buffer) {
                        Ok(count @ 1..) => output.take(stream, &buffer[..count]),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        // A terminal that nobody has any more is EIO.
                        _ => break,
                    }
                }
                // Who waits for it may have waited long enough.
                let _ = done.send(());
            };
            let thread = thread::Builder::new().name("output".to_owned());
            thread.spawn(body).map_err(InstanceError::host("start a thread"))?;
            pumps.push(is_done);
        }
        Ok(Pumps(pumps))
    }

    fn take(&self, stream: Stream, data: &[u8]) {
        lock(&self.0.log).write(stream, data);
        let clients = lock(&self.0.attached).clients.clone();
        if clients.is_empty() {
            return;
        }
        let data: Arc<[u8]> = data.into();
        for (id, client) in clients {
            if !offer(&client, Piece::Data(stream, Arc::clone(&data))) {
                self.detach(id);
            }
        }
    }

    /// What the workload reads, from now on.
    pub(super) fn set_input(&self, input: Option<OwnedFd>) {
        *lock(&self.0.input) = input.map(File::from);
    }

    /// Somebody is attached: output goes to `stdout` and `stderr`, and the end to `channel`. Gives what
    /// to [`Output::detach`].
    pub(super) fn attach(
        &self,
        stdout: OwnedFd,
        stderr: OwnedFd,
        channel: Channel,
    ) -> Result<u64, InstanceError> {
        let (sender, pieces) = sync_channel::<Piece>(QUEUE);
        let mut attached = lock(&self.0.attached);
        let id = attached.next;
        attached.next += 1;
        attached.clients.push((id, sender));
        attached.served += 1;
        drop(attached);
        let output = self.clone();
        let body = move || {
            if let Some((code, gate)) = pass_on(&pieces, stdout.into(), stderr.into()) {
                // Who hears of the end finds everything as it is behind it.
                gate.pass();
                channel.reply(&Reply::Ended { code }, &[]);
            }
            output.detach(id);
            lock(&output.0.attached).served -= 1;
            output.0.served.notify_all();
        };
        let thread = thread::Builder::new().name("attached".to_owned()).spawn(body);
        thread.map_err(InstanceError::host("start a thread"))?;
        Ok(id)
    }

    /// Copies what comes from `stdin` to the workload, until its end; that of the workload's input too,
    /// if `ends_input`.
    pub(super) fn feed(&self, stdin: OwnedFd, ends_input: bool) -> Result<(), InstanceError> {
        let output = self.clone();
        let body = move || {
            let mut stdin = File::from(stdin);
            let mut buffer = vec![0; PIECE];
            loop {
                let count = match stdin.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return,
                };
                // Not under the lock: the workload may take its time.
                let input = lock(&output.0.input).as_ref().map(File::try_clone);
                let Some(Ok(mut input)) = input else { return };
                if input.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            if ends_input {
                output.set_input(None);
            }
        };
        let thread = thread::Builder::new().name("input".to_owned()).spawn(body);
        thread.map(drop).map_err(InstanceError::host("start a thread"))
    }

    /// One that was attached has gone, or reads nothing.
    pub(super) fn detach(&self, id: u64) {
        lock(&self.0.attached).clients.retain(|(other, _)| *other != id);
    }

    /// The run is over: once everything is read that was written, who is attached is told the code.
    pub(super) fn finish(&self, pumps: Pumps, code: i32) {
        self.set_input(None);
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        for pump in pumps.0 {
            let left = deadline.saturating_duration_since(Instant::now());
            // What comes later is lost: something that the workload left behind holds its output open.
            let _ = pump.recv_timeout(left);
        }
        let gate = Arc::clone(&lock(&self.0.gate));
        // The threads end with their queues.
        let clients = std::mem::take(&mut lock(&self.0.attached).clients);
        for (_, client) in clients {
            offer(&client, Piece::End(code, Arc::clone(&gate)));
        }
    }

    /// From now on those who were attached may hear of the end.
    pub(super) fn release(&self) {
        lock(&self.0.gate).open();
    }

    /// Waits until all who were attached have had everything, as long as one may take that reads nothing.
    pub(super) fn settle(&self) {
        let attached = lock(&self.0.attached);
        let is_served = |attached: &mut Attached| attached.served > 0;
        let waited = self.0.served.wait_timeout_while(attached, TIMEOUT, is_served);
        drop(waited);
    }
}

/// Writes output to where it is to go, until the end, which it gives; None if nobody takes it.
fn pass_on(
    pieces: &Receiver<Piece>,
    mut stdout: File,
    mut stderr: File,
) -> Option<(i32, Arc<Gate>)> {
    loop {
        let (target, data) = match pieces.recv().ok()? {
            Piece::Data(Stream::Stdout, data) => (&mut stdout, data),
            Piece::Data(Stream::Stderr, data) => (&mut stderr, data),
            // Their files are closed here: now the reader has all.
            Piece::End(code, gate) => return Some((code, gate)),
        };
        target.write_all(&data).ok()?;
    }
}

/// Gives a piece to one who is attached, who may take a while; false: it takes no more.
fn offer(client: &SyncSender<Piece>, mut piece: Piece) -> bool {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match client.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(_)) if Instant::now() > deadline => return false,
            Err(TrySendError::Full(back)) => piece = back,
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they hold is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogOptions;

    #[test]
    fn output_goes_to_the_log_and_to_all_who_are_attached_and_then_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(LogWriter::new(dir.path(), LogOptions::default()));
        let (reader, mut writer) = io::pipe().unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let (theirs, ours) = Channel::pair().unwrap();
            let (stdout, out) = io::pipe().unwrap();
            let (stderr, err) = io::pipe().unwrap();
            output.attach(out.into(), err.into(), ours).unwrap();
            clients.push((theirs, stdout, stderr));
        }
        let pumps = output.pump(vec![(Stream::Stderr, reader.into())]).unwrap();
        writer.write_all(b"to all\n").unwrap();
        drop(writer);
        output.finish(pumps, 7);
        output.release();
        for (channel, mut stdout, mut stderr) in clients {
            let (mut out, mut err) = (String::new(), String::new());
            stdout.read_to_string(&mut out).unwrap();
            stderr.read_to_string(&mut err).unwrap();
            assert_eq!((out.as_str(), err.as_str()), ("", "to all\n"));
            let (reply, _) = channel.receive::<Reply>().unwrap().unwrap();
            assert!(matches!(reply, Reply::Ended { code: 7 }), "{reply:?}");
        }
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(log.ends_with(" stderr F to all\n"), "{log}");
    }

    #[test]
    fn who_has_gone_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(LogWriter::new(dir.path(), LogOptions::default()));
        let (_theirs, ours) = Channel::pair().unwrap();
        let (stdout, out) = io::pipe().unwrap();
        output.attach(out.try_clone().unwrap().into(), out.into(), ours).unwrap();
        drop(stdout);
        for _ in 0..1000 {
            output.take(Stream::Stdout, &[b'x'; 4096]);
        }
        assert!(lock(&output.0.attached).clients.is_empty());
    }

    #[test]
    fn input_comes_from_who_is_attached_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(LogWriter::new(dir.path(), LogOptions::default()));
        let (mut workload, input) = io::pipe().unwrap();
        output.set_input(Some(input.into()));
        for (text, ends) in [("one ", false), ("two", true)] {
            let (stdin, mut typed) = io::pipe().unwrap();
            typed.write_all(text.as_bytes()).unwrap();
            drop(typed);
            output.feed(stdin.into(), ends).unwrap();
            if !ends {
                let mut first = [0; 4];
                workload.read_exact(&mut first).unwrap();
                assert_eq!(&first, b"one ");
            }
        }
        let mut rest = String::new();
        workload.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "two");
    }
}
