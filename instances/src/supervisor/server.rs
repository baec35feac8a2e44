//! Answering on an instance's socket.
//!
//! Each client has a thread, of which there are so many and no more. None is waited for: what a client
//! does not read or send in time is the end of its connection.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use isolab_images::Image;
use isolab_isolation::{
    Controller, ExecProcess, FileRequest, FurtherProcess, Level, Stdio, WindowSize, oci,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{Backlog, UnixAddr, bind, getsockopt, listen, sockopt};
use nix::sys::stat::Mode;

use super::output::Output;
use super::record::Record;
use crate::config::Config;
use crate::error::InstanceError;
use crate::protocol::{Aside, Channel, Envelope, Reply, Request, Size, VERSION, new_socket};

/// In the instance's folder.
pub(crate) const SOCKET: &str = "socket";
/// How many clients there may be at once.
const MAX_CLIENTS: usize = 64;
/// How long a client may take to say what it wants, and to take an answer.
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
    clients: AtomicUsize,
    /// Clients that are told of the end.
    waiting: Mutex<usize>,
    told: Condvar,
}

/// Listens on the socket in `folder`, on a thread of its own.
///
/// # Errors
/// The socket cannot be made.
pub(super) fn serve(folder: &Path, served: &Served) -> Result<(), InstanceError> {
    let path = folder.join(SOCKET);
    let io = |errno: Errno| InstanceError::Io {
        action: "listen on",
        path: path.clone(),
        source: errno.into(),
    };
    // The lock is ours, and so is what a killed owner left.
    let _ = fs::remove_file(&path);
    let socket = new_socket().map_err(io)?;
    // A path may be longer than an address is; the folder's is short this way.
    let opened = open(folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(io)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    // Nobody but us enters the folder (0700) before the socket's own mode is set.
    bind(socket.as_raw_fd(), &UnixAddr::new(short.as_str()).map_err(io)?).map_err(io)?;
    let mode = fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    mode.map_err(|source| InstanceError::Io { action: "protect", path: path.clone(), source })?;
    listen(&socket, Backlog::new(16).map_err(io)?).map_err(io)?;
    let served = served.clone();
    let thread = thread::Builder::new().name("server".to_owned());
    let thread = thread.spawn(move || served.accept(&socket));
    thread.map(drop).map_err(InstanceError::host("start a thread"))
}

/// Ends the workload for good: by `signal`, and by SIGKILL when it takes longer than `timeout`.
pub(super) fn stop(record: &Record, signal: i32, timeout: Duration) {
    record.stop();
    let run = record.state().restarts;
    let Some(controller) = record.controller() else { return };
    let _ = controller.signal(signal);
    if record.state().status == crate::state::Status::Paused {
        unpause(record, controller.as_ref());
    }
    if !record.wait_run_ended(run, timeout) {
        let _ = controller.signal(libc::SIGKILL);
        unpause(record, controller.as_ref());
    }
}

fn unpause(record: &Record, controller: &dyn Controller) {
    if record.state().status == crate::state::Status::Paused && controller.unpause().is_ok() {
        record.set_paused(false);
    }
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
            clients: AtomicUsize::new(0),
            waiting: Mutex::new(0),
            told: Condvar::new(),
        }))
    }

    /// The workload's first process, as its configuration and its image make it.
    pub(super) fn first_process(&self) -> Option<oci::Process> {
        self.0.config.request.to_process(self.0.level, &self.0.image).ok()
    }

    pub(super) fn signal(&self, signal: i32) {
        if let Some(controller) = self.0.record.controller() {
            let _ = controller.signal(signal);
        }
    }

    /// Waits until those who wait for the end have been told, for a moment.
    pub(super) fn settle(&self) {
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.0.told.wait_timeout_while(waiting, TIMEOUT, |waiting| *waiting > 0);
    }

    fn accept(&self, socket: &OwnedFd) {
        loop {
            // SAFETY: the address is not asked for; the socket is live.
            let accepted = unsafe {
                libc::accept4(
                    socket.as_raw_fd(),
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    libc::SOCK_CLOEXEC,
                )
            };
            if accepted < 0 {
                match Errno::last() {
                    // Out of descriptors: some of the clients will go.
                    Errno::EMFILE | Errno::ENFILE => thread::sleep(Duration::from_millis(100)),
                    Errno::EINTR | Errno::ECONNABORTED => {}
                    _ => return,
                }
                continue;
            }
            // SAFETY: a new descriptor that nobody else owns.
            let client = unsafe { OwnedFd::from_raw_fd(accepted) };
            if !is_ours(&client) {
                continue;
            }
            let channel = Channel::new(client);
            if channel.set_timeouts(Some(TIMEOUT), Some(TIMEOUT)).is_err() {
                continue;
            }
            if self.0.clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
                self.0.clients.fetch_sub(1, Ordering::SeqCst);
                let why = format!("{MAX_CLIENTS} commands are at it already");
                let _ = channel.send(&Reply::Failed { code: 125, why }, &[]);
                continue;
            }
            let served = self.clone();
            let body = move || {
                served.answer(channel);
                served.0.clients.fetch_sub(1, Ordering::SeqCst);
            };
            if thread::Builder::new().name("client".to_owned()).spawn(body).is_err() {
                self.0.clients.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn answer(&self, channel: Channel) {
        let failed = |why: String| {
            let _ = channel.send(&Reply::Failed { code: 125, why }, &[]);
        };
        let (envelope, fds) = match channel.receive::<Envelope>() {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => return failed(format!("a malformed request: {error}")),
        };
        if envelope.version != VERSION {
            return failed(format!("a request of version {}, not {VERSION}", envelope.version));
        }
        // Who waits for the end is to be told before we are gone.
        let _waiting = self.waiting();
        let result = match envelope.request {
            Request::Attach { stdin } => self.attach_later(&channel, stdin, fds),
            Request::Exec { process, terminal, stdin } => {
                self.exec(&channel, &process, terminal, stdin, fds)
            }
            Request::Files { request, stdin } => self.files(&channel, request, stdin, fds),
            other => self.simple(other).map(|reply| drop(channel.send(&reply, &[]))),
        };
        if let Err(error) = result {
            let why = super::life::chain(&error);
            let _ = channel.send(&Reply::Failed { code: error.exit_code(), why }, &[]);
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
                    unpause(record, self.controller()?.as_ref());
                }
                Ok(Reply::Done)
            }
            Request::Stop { signal, timeout } => {
                stop(record, signal, Duration::from_secs(timeout));
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
            let _ = aside.set_timeouts(None, Some(TIMEOUT));
            while let Ok(Some((message, _))) = aside.receive::<Aside>() {
                let Some(controller) = served.0.record.controller() else { continue };
                match message {
                    Aside::Resize(size) => drop(controller.resize(size.into())),
                    Aside::Signal(signal) => drop(controller.signal(signal)),
                }
            }
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
        let _ = channel.send(&Reply::Started, &[]);
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
        let _ = channel.send(&Reply::Started, &rights);
        drop(terminal);
        let aside = channel.try_clone().map_err(InstanceError::host("duplicate a connection"))?;
        let told = Arc::clone(&process);
        let body = move || {
            let _ = aside.set_timeouts(None, Some(TIMEOUT));
            while let Ok(Some((message, _))) = aside.receive::<Aside>() {
                match message {
                    Aside::Resize(size) => drop(told.resize(size.into())),
                    Aside::Signal(signal) => drop(told.signal(signal)),
                }
            }
        };
        let thread = thread::Builder::new().name("exec".to_owned()).spawn(body);
        thread.map_err(InstanceError::host("start a thread"))?;
        let status = process.wait()?;
        let _ = channel.send(&Reply::Ended { code: i32::from(status.exit_code()) }, &[]);
        Ok(())
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

/// Whether a client is us, or root: the socket's mode says so already.
fn is_ours(client: &OwnedFd) -> bool {
    let uid = getsockopt(client, sockopt::PeerCredentials).map(|credentials| credentials.uid());
    uid.is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}
