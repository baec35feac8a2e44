//! What can be done to an instance while somebody waits for it, and further processes in it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use isolab_container::WindowSize;
use isolab_guest::FileRequest;
use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

use crate::error::IsolationError;
use crate::workload_status::WorkloadStatus;

/// Where a process's standard streams go.
#[derive(Debug)]
pub enum Stdio {
    /// Ours.
    Inherit {
        /// Whether it gets our standard input; otherwise its input is at its end from the start.
        stdin: bool,
    },
    /// Files, pipes or sockets of the caller's, which are closed here once the process has them.
    Streams {
        /// Without it, its input is at its end from the start.
        stdin: Option<OwnedFd>,
        /// Takes its standard output.
        stdout: OwnedFd,
        /// Takes its standard error.
        stderr: OwnedFd,
    },
    /// A terminal of its own, of this size at first. Its other end is to be had as
    /// [`Instance::terminal`](crate::Instance::terminal) or [`ExecProcess::terminal`].
    Terminal(WindowSize),
}

/// What can be done to an instance from any thread, also while another one waits for its end. It keeps
/// nothing alive: what comes too late has no effect, or is an error.
///
/// A level that cannot do a thing answers [`IsolationError::Unsupported`]; it never ignores it.
pub trait Controller: Send + Sync {
    /// Sends a signal to the workload, by its number (signal(7), x86).
    ///
    /// At the VM levels the second signal of those that end a process ends the machine, and so does a
    /// SIGTERM that has had no effect for 10 seconds.
    ///
    /// # Errors
    /// It was not sent. One to a workload that has ended is no error at the levels that share the host's
    /// kernel, and `BrokenPipe` at those that do not.
    fn signal(&self, signal: i32) -> io::Result<()>;

    /// Says how large the workload's terminal is now; the workload hears of it by SIGWINCH.
    ///
    /// # Errors
    /// It has no terminal.
    fn resize(&self, size: WindowSize) -> Result<(), IsolationError>;

    /// Starts a further process beside the workload, within the same walls and limits: with the user,
    /// environment, working directory, capabilities and so on of `process`, of whose `terminal` and
    /// `consoleSize` `stdio` has the say.
    ///
    /// # Errors
    /// It cannot be started; [`IsolationError::exit_code`] has the code that says why. The instance
    /// has ended, or has not been started yet.
    fn exec(&self, process: Process, stdio: Stdio) -> Result<Box<dyn ExecProcess>, IsolationError>;

    /// Starts what is done with the instance's files where only who is in it can reach them: a guest's init does it. With
    /// streams as [`FileRequest`] has them.
    ///
    /// # Errors
    /// Its files are the host's, to be reached there; or the guest has ended.
    fn files(
        &self,
        request: FileRequest,
        stdio: Stdio,
    ) -> Result<Box<dyn ExecProcess>, IsolationError>;

    /// Makes everything in the instance stand still, and waits until it does. Nothing more happens to one
    /// that is paused already. Signals wait until [`Controller::unpause`], SIGKILL too at some levels.
    ///
    /// # Errors
    /// It did not stand still within some seconds, and goes on; or it has ended.
    fn pause(&self) -> Result<(), IsolationError>;

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended, or the host refused.
    fn unpause(&self) -> Result<(), IsolationError>;

    /// The processes in it, the workload first, without threads.
    ///
    /// # Errors
    /// The host has no way to tell them from others, or the guest does not answer.
    fn processes(&self) -> Result<Vec<ProcessEntry>, IsolationError>;

    /// What it has used so far, seen from the host.
    ///
    /// # Errors
    /// The host cannot tell at all. A figure that is missing is None.
    fn stats(&self) -> Result<Stats, IsolationError>;
}

/// A further process in a running instance. Dropping it kills it; it ends with the instance in any case.
///
/// All but [`ExecProcess::terminal`] take it by reference, so that one thread can wait while another
/// passes signals on.
pub trait ExecProcess: Send + Sync {
    /// Waits for its end. Can be called again: the answer stays the same.
    ///
    /// # Errors
    /// The level lost track of it.
    fn wait(&self) -> Result<WorkloadStatus, IsolationError>;

    /// As [`Controller::signal`], but at no level does it end more than the process.
    ///
    /// # Errors
    /// As there.
    fn signal(&self, signal: i32) -> io::Result<()>;

    /// As [`Controller::resize`].
    ///
    /// # Errors
    /// As there.
    fn resize(&self, size: WindowSize) -> Result<(), IsolationError>;

    /// Our end of its terminal, once, if it was started with [`Stdio::Terminal`]: what is read from it is
    /// the output, what is written is typed. It is a pty's master or one end of a socket pair, so that
    /// the size goes by [`ExecProcess::resize`], not by an ioctl. At the process's end it reads as its end, or
    /// as EIO (pty(7)).
    fn terminal(&mut self) -> Option<OwnedFd>;
}

/// A process in an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Its id as the instance's own processes see it.
    pub pid: u32,
    /// Its parent's, likewise; 0 where that is outside.
    pub parent: u32,
    /// Its id on the host, which a guest's has none of.
    pub host_pid: Option<u32>,
    /// Its effective user id as the instance sees it.
    pub uid: u32,
    /// proc(5): R, S, D, Z, T …
    pub state: char,
    /// CPU time of all its threads.
    pub cpu_time: Duration,
    /// Since its start.
    pub elapsed: Duration,
    /// Bytes of memory resident.
    pub resident: u64,
    /// Its arguments; of a process that has none, such as a dead one, its name in brackets. They come from the
    /// workload: whoever prints them takes care of control characters.
    pub command: Vec<String>,
}

/// What an instance has used so far, seen from the host. None: the host or the level has no such figure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time that its processes have had; of a machine, its vCPUs and our own work for it.
    pub cpu_time: Option<Duration>,
    /// Bytes of the host's memory that it uses now, page cache of its files included.
    pub memory: Option<u64>,
    /// The most that it may use, in bytes: its limit.
    pub memory_limit: Option<u64>,
    /// Bytes in use as the guest sees it: the guest's word.
    #[serde(default)]
    pub guest_memory: Option<u64>,
    /// Processes and threads now, where they are the host's.
    pub pids: Option<u64>,
    /// Those of a guest, without its kernel's and init: the guest's word.
    #[serde(default)]
    pub guest_pids: Option<u64>,
    /// Bytes read from disks, and from them to it.
    pub block_read: Option<u64>,
    /// Bytes written to disks.
    pub block_written: Option<u64>,
    /// Bytes that it has received over networks, loopback not counted.
    pub network_received: Option<u64>,
    /// Bytes that it has sent, likewise.
    pub network_sent: Option<u64>,
    /// How often a machine's vCPUs have left the guest for our process.
    pub exits: Option<u64>,
    /// Of these, for a device's ports and memory, by the device's name.
    #[serde(default)]
    pub exits_by_device: Option<BTreeMap<String, u64>>,
}
