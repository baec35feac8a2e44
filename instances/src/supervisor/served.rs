//! What the clients of an instance may ask for, and what is done for them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use error_reporter::Report;
use isolab_images::Image;
use isolab_isolation::{
    Controller, ExecProcess, FileRequest, FurtherProcess, Level, Stdio, WindowSize, oci,
};

use super::ending;
use super::output::Output;
use super::record::Record;
use crate::config::Config;
use crate::error::InstanceError;
use crate::protocol::{Aside, Channel, Reply, Request, Size};

/// How long those who wait for the end may take to hear of it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the kernel, or a guest's end, may take after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// An instance as its clients have it. Clones share everything.
#[derive(Clone)]
pub(super) struct Served(Arc<Inner>);

struct Inner {
    record: Arc<Record>,
    /// Where its output goes; None where that is the caller's own.
    output: Option<Output>,
    level: Level,
    config: Config,
    image: Image,
    /// Clients that are to be told of the end.
    waiting: Mutex<usize>,
    told: Condvar,
}

impl Served {
    pub(super) fn new(
        record: Arc<Record>,
        output: Option<Output>,
        level: Level,
        config: Config,
        image: &Image,
    ) -> Self {
        Self(Arc::new(Inner {
            record,
            output,
            level,
            config,
            image: image.clone(),
            waiting: Mutex::new(0),
            told: Condvar::new(),
        }))
    }

    /// The workload's first process, as its configuration and its image make it.
    pub(super) fn first_process(&self) -> Option<oci::Process> {
        self.0.config.request.to_process(self.0.level, &self.0.image).ok()
    }

    /// Waits until those who wait for the end have been told, for a moment.
    pub(super) fn settle(&self) {
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.0.told.wait_timeout_while(waiting, TIMEOUT, |waiting| *waiting > 0);
        drop(told);
    }

    /// Does what a client asks for, and tells it what became of that, to the end of it.
    pub(super) fn answer(&self, channel: &Channel, request: Request, fds: Vec<OwnedFd>) {
        // Who waits for the end is to be told before we are gone.
        let _waiting = self.waiting();
        let result = match request {
            Request::Attach { stdin } => self.attach_later(channel, stdin, fds),
            Request::Exec { process, terminal, stdin } => {
                self.exec(channel, &process, terminal, stdin, fds)
            }
            Request::Files { request, stdin } => self.files(channel, request, stdin, fds),
            other => self.simple(other).map(|reply| channel.reply(&reply, &[])),
        };
        if let Err(error) = result {
            let code = error.exit_code();
            let why = Report::new(error).to_string();
            channel.reply(&Reply::Failed { code, why }, &[]);
        }
    }

    fn simple(&self, request: Request) -> Result<Reply, InstanceError> {
        let record = &self.0.record;
        match request {
            Request::Signal { signal } => {
                if signal == libc::SIGKILL || signal == self.0.config.stop_signal {
                    // As Docker has it: whoever ends it does not want it started again.
                    record.stop();
                }
                let sent = self.controller()?.signal(signal);
                sent.map_err(InstanceError::host("send the signal"))?;
                if signal == libc::SIGKILL {
                    ending::unpause(record, self.controller()?.as_ref());
                }
                Ok(Reply::Done)
            }
            Request::Stop { signal, timeout } => {
                ending::end(record, signal, Duration::from_secs(timeout));
                let code = record.wait_finished(KILL_TIMEOUT);
                code.map(|code| Reply::Ended { code }).ok_or_else(|| InstanceError::Refused {
                    code: 125,
                    why: "the workload does not end, not even by SIGKILL".to_owned(),
                })
            }
            Request::Pause => {
                self.controller()?.pause()?;
                record.set_paused(true);
                Ok(Reply::Done)
            }
            Request::Unpause => {
                self.controller()?.unpause()?;
                record.set_paused(false);
                Ok(Reply::Done)
            }
            Request::Stats => Ok(Reply::Stats(self.controller()?.stats()?)),
            Request::Processes => Ok(Reply::Processes(self.controller()?.processes()?)),
            Request::Wait => {
                let code = record.wait_finished(FOREVER).unwrap_or(125);
                Ok(Reply::Ended { code })
            }
            Request::Start
            | Request::Attach { .. }
            | Request::Exec { .. }
            | Request::Files { .. } => Err(refused("it runs already")),
        }
    }

    fn controller(&self) -> Result<Arc<dyn Controller>, InstanceError> {
        self.0.record.controller().ok_or_else(|| refused("its workload does not run now"))
    }

    /// Counts as one who is to be told of the end, as long as it lives.
    fn waiting(&self) -> Waiting<'_> {
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Waiting(self)
    }

    /// Attaches whoever sent these descriptors.
    pub(super) fn attach(
        &self,
        channel: Channel,
        stdin: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<u64, InstanceError> {
        let output = self.0.output.as_ref();
        let output = output.ok_or_else(|| refused("its streams are those of who runs it"))?;
        let mut fds = fds.into_iter();
        let input = if stdin { fds.next() } else { None };
        let (Some(stdout), Some(stderr)) = (fds.next(), fds.next()) else {
            return Err(refused("the request has no streams"));
        };
        let aside = channel.try_clone().map_err(InstanceError::host("duplicate a connection"))?;
        let id = output.attach(stdout, stderr, channel)?;
        if let Some(input) = input {
            output.feed(input, !self.0.config.terminal)?;
        }
        let (served, output) = (self.clone(), output.clone());
        let body = move || {
            listen(&aside, |message| {
                let Some(controller) = served.0.record.controller() else { return };
                match message {
                    Aside::Resize(size) => drop(controller.resize(size.into())),
                    Aside::Signal(signal) => drop(controller.signal(signal)),
                }
            });
            output.detach(id);
        };
        let thread = thread::Builder::new().name("attached".to_owned()).spawn(body);
        thread.map_err(InstanceError::host("start a thread"))?;
        Ok(id)
    }

    fn attach_later(
        &self,
        channel: &Channel,
        stdin: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(), InstanceError> {
        self.controller()?;
        let own = channel.try_clone().map_err(InstanceError::host("duplicate a connection"))?;
        self.attach(own, stdin, fds)?;
        channel.reply(&Reply::Started, &[]);
        Ok(())
    }

    fn files(
        &self,
        channel: &Channel,
        request: FileRequest,
        stdin: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(), InstanceError> {
        let process = self.controller()?.files(request, streams(stdin, fds)?)?;
        self.follow(channel, process)
    }

    fn exec(
        &self,
        channel: &Channel,
        process: &FurtherProcess,
        terminal: Option<Size>,
        stdin: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(), InstanceError> {
        let controller = self.controller()?;
        let first = self.first_process().ok_or_else(|| refused("its image is damaged"))?;
        let process = process.to_process(&first, &self.0.image)?;
        let stdio = match terminal {
            Some(size) => Stdio::Terminal(size.into()),
            None => streams(stdin, fds)?,
        };
        self.follow(channel, controller.exec(process, stdio)?)
    }

    /// Tells a client of a process that was started for it, to its end.
    fn follow(
        &self,
        channel: &Channel,
        mut process: Box<dyn ExecProcess>,
    ) -> Result<(), InstanceError> {
        let terminal = process.terminal();
        let process: Arc<dyn ExecProcess> = process.into();
        let rights: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
        channel.reply(&Reply::Started, &rights);
        drop(terminal);
        let aside = channel.try_clone().map_err(InstanceError::host("duplicate a connection"))?;
        let told = Arc::clone(&process);
        let body = move || {
            listen(&aside, |message| match message {
                Aside::Resize(size) => drop(told.resize(size.into())),
                Aside::Signal(signal) => drop(told.signal(signal)),
            });
        };
        let thread = thread::Builder::new().name("exec".to_owned()).spawn(body);
        thread.map_err(InstanceError::host("start a thread"))?;
        let status = process.wait()?;
        channel.reply(&Reply::Ended { code: i32::from(status.exit_code()) }, &[]);
        Ok(())
    }
}

/// Does what a client says while its request lasts, until it has gone. What comes too late is of no interest.
fn listen(aside: &Channel, act: impl Fn(Aside)) {
    // It need not say anything. Where the limit stays, that ends the listening, and nothing else.
    let _ = aside.set_timeouts(None, Some(TIMEOUT));
    while let Ok(Some((message, _))) = aside.receive::<Aside>() {
        act(message);
    }
}

/// A process's streams, as a client sent them.
fn streams(stdin: bool, fds: Vec<OwnedFd>) -> Result<Stdio, InstanceError> {
    let mut fds = fds.into_iter();
    let stdin = if stdin { fds.next() } else { None };
    let (Some(stdout), Some(stderr)) = (fds.next(), fds.next()) else {
        return Err(refused("the request has no streams"));
    };
    Ok(Stdio::Streams { stdin, stdout, stderr })
}

/// One who is to be told of the end.
struct Waiting<'a>(&'a Served);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let inner = &self.0.0;
        *inner.waiting.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        inner.told.notify_all();
    }
}

impl From<Size> for WindowSize {
    fn from(size: Size) -> Self {
        let Size { rows, columns } = size;
        Self { rows, columns }
    }
}

fn refused(why: &str) -> InstanceError {
    InstanceError::Refused { code: 125, why: why.to_owned() }
}
