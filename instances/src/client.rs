//! A command's side of an instance's socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use isolab_isolation::{FileRequest, FurtherProcess, ProcessEntry, Stats, WindowSize};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{UnixAddr, connect};
use nix::sys::stat::Mode;
use serde::Serialize;

use crate::error::InstanceError;
use crate::protocol::{Aside, Channel, Envelope, Reply, Request, Size, VERSION, new_socket};
use crate::supervisor::SOCKET;

/// How long whoever looks after an instance may take to say that it has heard us. A pause, for example,
/// takes longer where many processes have to stand still.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to whoever looks after an instance.
#[derive(Debug)]
pub struct Connection {
    name: String,
    channel: Channel,
}

/// A workload, or a further process, that is being talked to until it ends.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// Our end of its terminal, if it has one of its own.
    pub terminal: Option<OwnedFd>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Connection {
    /// None if nobody answers there.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Option<Self>, InstanceError> {
        let path = folder.join(SOCKET);
        let io = |errno: Errno| InstanceError::Io {
            action: "connect to",
            path: path.clone(),
            source: errno.into(),
        };
        let socket = new_socket().map_err(io)?;
        let opened = match open(folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other.map_err(io)?,
        };
        // A path may be longer than an address is.
        let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
        let address = UnixAddr::new(short.as_str()).map_err(io)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => Ok(Some(Self::over(Channel::new(socket), name)?)),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(io(errno)),
        }
    }

    pub(crate) fn over(channel: Channel, name: &str) -> Result<Self, InstanceError> {
        let set = channel.set_timeouts(Some(TIMEOUT), Some(TIMEOUT));
        set.map_err(InstanceError::host("set a socket's time limits"))?;
        Ok(Self { name: name.to_owned(), channel })
    }

    pub(crate) fn ask(&self, request: Request, fds: &[BorrowedFd]) -> Result<(), InstanceError> {
        self.send(&Envelope { version: VERSION, request }, fds)
    }

    fn send(&self, message: &impl Serialize, fds: &[BorrowedFd]) -> Result<(), InstanceError> {
        self.channel.send(message, fds).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.killed(),
            _ => InstanceError::host("talk to the supervisor")(error),
        })
    }

    fn killed(&self) -> InstanceError {
        InstanceError::SupervisorKilled(self.name.clone())
    }

    pub(crate) fn hear(&self) -> Result<(Reply, Vec<OwnedFd>), InstanceError> {
        match self.channel.receive() {
            Ok(Some((Reply::Failed { code, why }, _))) => Err(InstanceError::Refused { code, why }),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(self.killed()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(InstanceError::Silent(self.name.clone()))
            }
            Err(error) => Err(InstanceError::host("talk to the supervisor")(error)),
        }
    }

    /// Waits for the answer as long as it takes.
    fn wait_for_ever(&self) -> Result<(), InstanceError> {
        let set = self.channel.set_timeouts(None, Some(TIMEOUT));
        set.map_err(InstanceError::host("set a socket's time limits"))
    }

    fn done(&self, request: Request) -> Result<(), InstanceError> {
        self.ask(request, &[])?;
        self.hear().map(drop)
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<(), InstanceError> {
        self.done(Request::Signal { signal })
    }

    pub(crate) fn pause(&self) -> Result<(), InstanceError> {
        self.done(Request::Pause)
    }

    pub(crate) fn unpause(&self) -> Result<(), InstanceError> {
        self.done(Request::Unpause)
    }

    pub(crate) fn stop(&self, signal: i32, timeout: u64) -> Result<i32, InstanceError> {
        self.wait_for_ever()?;
        self.ask(Request::Stop { signal, timeout }, &[])?;
        self.ended()
    }

    pub(crate) fn wait(&self) -> Result<i32, InstanceError> {
        self.wait_for_ever()?;
        self.ask(Request::Wait, &[])?;
        self.ended()
    }

    fn ended(&self) -> Result<i32, InstanceError> {
        loop {
            if let (Reply::Ended { code }, _) = self.hear()? {
                return Ok(code);
            }
        }
    }

    pub(crate) fn stats(&self) -> Result<Stats, InstanceError> {
        self.ask(Request::Stats, &[])?;
        match self.hear()?.0 {
            Reply::Stats(stats) => Ok(stats),
            other => Err(self.strange(&other)),
        }
    }

    pub(crate) fn processes(&self) -> Result<Vec<ProcessEntry>, InstanceError> {
        self.ask(Request::Processes, &[])?;
        match self.hear()?.0 {
            Reply::Processes(processes) => Ok(processes),
            other => Err(self.strange(&other)),
        }
    }

    fn strange(&self, reply: &Reply) -> InstanceError {
        let why = format!("the supervisor of instance `{}` answers {reply:?}", self.name);
        InstanceError::Refused { code: 125, why }
    }

    /// Waits until whatever was asked for has begun.
    pub(crate) fn started(self) -> Result<Session, InstanceError> {
        self.wait_for_ever()?;
        let (reply, mut fds) = self.hear()?;
        match reply {
            Reply::Started => Ok(Session { connection: self, terminal: fds.pop() }),
            other => Err(self.strange(&other)),
        }
    }

    pub(crate) fn attach(self, streams: &Streams) -> Result<Session, InstanceError> {
        self.ask_attach(streams)?;
        self.started()
    }

    pub(crate) fn ask_attach(&self, streams: &Streams) -> Result<(), InstanceError> {
        let request = Request::Attach { stdin: streams.stdin.is_some() };
        self.ask(request, &streams.as_fds())
    }

    pub(crate) fn files(
        self,
        request: FileRequest,
        streams: &Streams,
    ) -> Result<Session, InstanceError> {
        let stdin = streams.stdin.is_some();
        self.ask(Request::Files { request, stdin }, &streams.as_fds())?;
        self.started()
    }

    pub(crate) fn exec(
        self,
        process: FurtherProcess,
        terminal: Option<WindowSize>,
        streams: &Streams,
    ) -> Result<Session, InstanceError> {
        let stdin = streams.stdin.is_some();
        let fds = if terminal.is_some() { Vec::new() } else { streams.as_fds() };
        let size = terminal.map(|WindowSize { rows, columns }| Size { rows, columns });
        self.ask(Request::Exec { process, terminal: size, stdin }, &fds)?;
        self.started()
    }
}

/// Where the streams of a process go to, or come from.
#[derive(Debug)]
pub struct Streams<'a> {
    /// Without it there is no input.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Standard output, and what goes to a terminal.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
}

impl<'a> Streams<'a> {
    fn as_fds(&self) -> Vec<BorrowedFd<'a>> {
        self.stdin.into_iter().chain([self.stdout, self.stderr]).collect()
    }
}

impl Session {
    /// Waits for its end, and gives its exit code.
    ///
    /// # Errors
    /// Whoever looks after the instance was killed.
    pub fn wait(&self) -> Result<i32, InstanceError> {
        self.connection.ended()
    }

    /// Something that says what happens meanwhile.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn aside(&self) -> Result<Asides, InstanceError> {
        let channel = self.connection.channel.try_clone();
        channel.map(Asides).map_err(InstanceError::host("duplicate a connection"))
    }
}

/// Says what happens while a [`Session`] lasts, from any thread.
#[derive(Debug)]
pub struct Asides(Channel);

impl Asides {
    /// The size of the terminal that shows it is another now.
    pub fn resize(&self, WindowSize { rows, columns }: WindowSize) {
        // What comes too late is of no interest.
        let _ = self.0.send(&Aside::Resize(Size { rows, columns }), &[]);
    }

    /// A signal is to reach it.
    pub fn signal(&self, signal: i32) {
        let _ = self.0.send(&Aside::Signal(signal), &[]);
    }

    /// Ends the session; the process goes on.
    pub fn detach(&self) {
        let _ = nix::sys::socket::shutdown(
            self.0.as_fd().as_raw_fd(),
            nix::sys::socket::Shutdown::Both,
        );
    }
}
