//! A PostgreSQL of the test's own, and the shop's server before it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

/// Far longer than anything here takes on a machine that is not overloaded.
const PATIENCE: Duration = Duration::from_secs(120);

/// PostgreSQL on a Unix socket in a folder that goes with it.
pub struct Postgres {
    server: Option<Child>,
    folder: TempDir,
}

impl Postgres {
    /// Makes a cluster with the shop's schema and goods, and starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut postgres = Self { server: None, folder };
        let user = User::from_name("postgres").unwrap().expect("the package postgresql makes it");
        nix::unistd::chown(postgres.folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=trust", "--username=shop", "--no-sync", "--encoding=UTF8"]);
        run(initdb.arg("--locale=C.UTF-8").arg(postgres.data()));
        postgres.restart();
        for file in ["schema.sql", "seed.sql"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../db").join(file);
            postgres.psql(&fs::read_to_string(path).unwrap());
        }
        postgres
    }

    /// Starts the server again, and waits until it takes connections.
    pub fn restart(&mut self) {
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        server.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        let mut server = server.stderr(Stdio::piped()).spawn().expect("postgres");
        let lines = lines_of(server.stderr.take().unwrap());
        wait_for(&lines, "ready to accept connections");
        self.server = Some(server);
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // SIGQUIT is PostgreSQL's own crash: it ends its children as well, and recovers at the next start.
        kill(Pid::from_raw(server.id() as i32), Signal::SIGQUIT).unwrap();
        server.wait().unwrap();
    }

    /// Runs a script, and gives its output without headings.
    pub fn psql(&self, script: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "shop", "-d", "postgres"]);
        run(psql.arg("-h").arg(self.folder.path()).arg("-c").arg(script))
    }

    /// How the server is told of it.
    pub fn parameters(&self) -> String {
        format!("host={} user=shop dbname=postgres", self.folder.path().display())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of PostgreSQL's, as its user: it refuses to run as root.
    fn command(&self, name: &str) -> Command {
        let user = User::from_name("postgres").unwrap().expect("the package postgresql makes it");
        let found = fs::read_dir("/usr/lib/postgresql").expect("Debian's PostgreSQL");
        let found = found.map(|version| version.unwrap().path().join("bin").join(name));
        let program = found.max().expect("a version of PostgreSQL");
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).uid(user.uid.as_raw()).gid(user.gid.as_raw());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The shop's server on a port of the loopback interface.
pub struct Server {
    process: Child,
    /// What it writes.
    pub log: Receiver<String>,
    /// Where it is asked, without a slash at its end.
    pub url: String,
}

impl Server {
    /// Starts it with more options.
    pub fn start(postgres: &Postgres, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-shop"));
        command.arg("--database").arg(postgres.parameters()).args(["--listen", "127.0.0.1:0"]);
        let mut process = command.args(options).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines_of(process.stderr.take().unwrap());
        let line = wait_for(&log, "address=");
        let address = line.split("address=").nth(1).unwrap().trim().to_owned();
        Self { process, log, url: format!("http://{address}") }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // To the end, also when nobody listens: a full pipe would stop the writer.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Waits for a line with `text` in it.
pub fn wait_for(lines: &Receiver<String>, text: &str) -> String {
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => seen.push(line),
            Err(error) => panic!("no {text:?} ({error}) after {seen:#?}"),
        }
    }
}
