//! End-to-end tests: the real binaries on real kernels and images.
//!
//! A [`Sandbox`] is a store of its own with the busybox image in it. [`workloads`] has what must
//! be the same at every level; `tests/levels.rs` runs it on any host, `tests/machines.rs` at the
//! VM levels; [`lifecycle`] what instances in the background do, [`networked`] those on networks, [`user_mode`] those
//! of a user who is not root, [`volumes`] what they keep. [`guests`] are machines whose init is a script;
//! [`devices`] has what disks and networks must do on both machines; [`odd_image`] an image whose
//! files are the same at every level; [`pages`] what a reader of our pages sees in a [`browser`].

#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod browser;
pub mod carried;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod composed;
pub mod controlled;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod copies;
pub mod devices;
pub mod dropped;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod ends;
pub mod foreground;
pub mod guests;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod lifecycle;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod networked;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod odd_image;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod pages;
pub mod piped;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod standby;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod tiers;
pub mod unread;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod user_ids;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod user_mode;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod volumes;
pub mod workloads;

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::signal::{SigHandler, Signal};
use tempfile::TempDir;

/// How long anything may take before a test calls it hung. Generous: the host may be emulated, and
/// busy.
pub const TIME_LIMIT: Duration = Duration::from_secs(600);

/// How often what is left to chance is tried: ISOLAB_TEST_ROUNDS, for when there is time, or as often as `usual`.
pub fn rounds(usual: u32) -> u32 {
    let asked = env::var("ISOLAB_TEST_ROUNDS").ok();
    asked.map_or(usual, |asked| asked.parse().expect("ISOLAB_TEST_ROUNDS is a number"))
}

/// The checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").into()
}

/// The executable `name` that is tested: of the release build, as `scripts/kvm-host` puts it on PATH.
pub fn executable(name: &str) -> PathBuf {
    let path = checkout().join("target/x86_64-unknown-linux-gnu/release").join(name);
    assert!(path.exists(), "{} is missing: run cargo build --release", path.display());
    path
}

/// The `isolab` that is tested.
pub fn isolab_path() -> PathBuf {
    executable("isolab")
}

/// Copies the executables that run and manage images into `folder`, for those who may not enter the
/// checkout; gives the `isolab` there.
///
/// By cp: a descriptor of ours, open for writing, could be inherited by another test's child, and the
/// kernel executes nothing that somebody writes.
pub fn install_isolab(folder: &Path) -> PathBuf {
    for name in ["isolab", "isolab-image", "isolab-init", "isolab-instance"] {
        tool("install", &["-m", "755", text(&executable(name)), text(&folder.join(name))]);
    }
    folder.join("isolab")
}

/// `${XDG_CACHE_HOME:-~/.cache}/isolab/PATH`, which must exist.
pub fn cached(path: &str) -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let file = base.expect("there is a home").join("isolab").join(path);
    assert!(file.exists(), "{} is missing: scripts/test makes it", file.display());
    file
}

/// Runs a tool that must succeed; gives what it printed.
#[track_caller]
pub fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}; scripts/test installs it"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("tools print UTF-8")
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// The OCI image layout that `scripts/make-busybox-image` makes.
pub fn busybox_layout() -> PathBuf {
    cached("images/busybox")
}

/// A store of a test's own.
pub struct Sandbox {
    data: TempDir,
}

impl Sandbox {
    /// An empty store.
    pub fn empty() -> Self {
        Self { data: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// An empty store on a disk: tmpfs, which /tmp may be, has no `user.*` attributes before
    /// Linux 6.6.
    pub fn on_disk() -> Self {
        Self { data: tempfile::tempdir_in("/var/tmp").expect("/var/tmp is everybody's") }
    }

    /// A store with the busybox image.
    pub fn with_busybox() -> Self {
        let sandbox = Self::empty();
        let load = sandbox.isolab(&["image", "load"]).arg(busybox_layout()).finish();
        assert!(load.status.success(), "{}", load.stderr);
        sandbox
    }

    /// `isolab` with these arguments, on this store.
    pub fn isolab(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(isolab_path());
        let arguments = user_ids::with_options(arguments);
        command.args(arguments).env("XDG_DATA_HOME", self.data.path()).stdin(Stdio::null());
        Run(command)
    }

    /// `isolab run --isolation LEVEL busybox` with these arguments.
    pub fn run(&self, level: &str, arguments: &[&str]) -> Done {
        self.isolab(&["run", "--isolation", level, "busybox"]).args(arguments).finish()
    }

    /// Where the store keeps everything.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The names of the instances that have a folder.
    pub fn instances(&self) -> Vec<String> {
        instances_in(self.data())
    }
}

/// The names of the instances in the data folder of a user (`XDG_DATA_HOME`), sorted. What instances
/// share stays, under names with a dot.
pub fn instances_in(data: &Path) -> Vec<String> {
    let folder = fs::read_dir(data.join("isolab/instances")).expect("it was made");
    let names = folder.map(|entry| entry.expect("it can be read").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// The paths of folders anywhere below `root` that have `word` in their names, but not those inside them.
///
/// A folder that is removed meanwhile, as cgroups of other tests are, is none: `find` would fail of it.
pub fn folders_named(root: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut unread = vec![root.to_owned()];
    while let Some(folder) = unread.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if entry.file_name().to_string_lossy().contains(word) {
                    found.push(path.display().to_string());
                } else {
                    unread.push(path);
                }
            }
        }
    }
    found
}

/// The cgroups of this host that have `word` in their names.
pub fn cgroups_named(word: &str) -> Vec<String> {
    folders_named(Path::new("/sys/fs/cgroup"), word)
}

/// A command that is about to run.
pub struct Run(Command);

impl Run {
    /// Any command, not on a sandbox.
    pub fn new(command: Command) -> Self {
        Self(command)
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs to the end, with nothing to read.
    pub fn finish(self) -> Done {
        self.start(Stdio::null()).finish()
    }

    /// Runs to the end, with `input` to read.
    pub fn finish_with_input(self, input: &[u8]) -> Done {
        let mut running = self.start(Stdio::piped());
        let mut stdin = running.child.stdin.take().expect("it was piped");
        let input = input.to_vec();
        let feeder = thread::spawn(move || {
            use std::io::Write;
            // The other side may have enough before the end.
            let _ = stdin.write_all(&input);
        });
        let done = running.finish();
        feeder.join().expect("feeding does not panic");
        done
    }

    /// Starts it.
    pub fn start(mut self, stdin: Stdio) -> Running {
        // SAFETY: `obey_the_keyboard` makes system calls only, which a forked child may.
        unsafe { self.0.pre_exec(obey_the_keyboard) };
        let mut child = self
            .0
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = pieces_of(child.stdout.take().expect("it was piped"));
        let stderr = pieces_of(child.stderr.take().expect("it was piped"));
        Running { child, stdout, stderr, seen: String::new(), searched: 0 }
    }
}

/// SIGINT and SIGQUIT do what they do in a terminal: a shell that was told to run the tests in the background starts
/// them with both ignored (POSIX shell, 2.11), and what they start inherits that.
fn obey_the_keyboard() -> io::Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is installed.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// A command that runs, until it is dropped at the latest.
pub struct Running {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
    seen: String,
    /// Where the next search begins, behind what was found before.
    searched: usize,
}

impl Running {
    /// Waits for output that contains `text`, behind what was waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            if let Some(at) = self.seen[self.searched..].find(text) {
                self.searched += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(piece) => self.seen.push_str(&piece),
                Err(_) => {
                    let _ = self.child.kill();
                    let stderr: String = self.stderr.iter().collect();
                    panic!("no `{text}` in:\n{}\nstandard error:\n{stderr}", self.seen);
                }
            }
        }
    }

    /// Writes to its standard input, which stays open.
    pub fn feed(&mut self, input: &[u8]) {
        use std::io::Write;
        let stdin = self.child.stdin.as_mut().expect("it was started with a pipe");
        stdin.write_all(input).expect("it reads its input");
    }

    /// Ends its standard input, and waits for the end.
    pub fn finish_input(mut self) -> Done {
        self.child.stdin.take();
        self.finish()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("the process has not been waited for");
    }

    /// Sends a signal by its number: real-time ones have no names.
    pub fn signal_number(&self, number: i32) {
        // SAFETY: kill(2) takes numbers only.
        let sent = unsafe { libc::kill(self.child.id() as i32, number) };
        assert_eq!(sent, 0, "the process has not been waited for");
    }

    /// Closes the pipe from its standard output.
    pub fn stop_reading(mut self) -> Self {
        // The thread that reads ends with the channel.
        self.stdout = mpsc::channel().1;
        self
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Done {
        let deadline = Instant::now() + TIME_LIMIT;
        // The streams end when every holder of them has.
        let mut drain = |pieces: &mpsc::Receiver<String>, text: &mut String| {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match pieces.recv_timeout(left) {
                    Ok(piece) => text.push_str(&piece),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        let _ = self.child.kill();
                        panic!("hung; it said:\n{text}");
                    }
                }
            }
        };
        let (mut stdout, mut stderr) = (std::mem::take(&mut self.seen), String::new());
        drain(&self.stdout, &mut stdout);
        drain(&self.stderr, &mut stderr);
        let status = self.child.wait().expect("it is our child");
        Done { status, stdout, stderr }
    }
}

/// A test that fails leaves nothing running.
impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing where it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what comes when it comes, on a thread of its own.
fn pieces_of(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let piece = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if sender.send(piece).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A command that ended.
#[derive(Debug)]
pub struct Done {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Done {
    /// The exit code; a signal's death has none.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts success and gives the output.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{:?}", self);
        self.stdout
    }

    /// Asserts a failure with this code whose message has all of these words.
    #[track_caller]
    pub fn fails_with(self, code: i32, words: &[&str]) {
        assert_eq!(self.code(), Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in: {}", self.stderr);
        }
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
