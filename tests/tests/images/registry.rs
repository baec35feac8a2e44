//! A real registry (Debian's docker-registry) on loopback, and a proxy in front of it that
//! counts what is asked for and can break a connection.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// `operator`, `secret`, by bcrypt.
const HTPASSWD: &str = "operator:$2b$04$YmSpXlrte3VqdKLBi0EU7eOKUpQL.KOvFVbg969nUkC4LZRFFj1wS\n";

pub struct Registry {
    process: Child,
    dir: TempDir,
    port: u16,
}

/// An authority, and what it signed for a registry on loopback.
const CERTIFICATES: &str = r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$CA" \
    -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry \
    -keyout registry.key -out registry.csr
printf 'subjectAltName=IP:127.0.0.1' >extensions
openssl x509 -req -in registry.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
    -extfile extensions -out registry.crt
"#;

impl Registry {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// One that lets in `operator` with the password `secret`.
    pub fn start_with_password() -> Self {
        Self::start_with("auth:\n  htpasswd:\n    realm: tests\n    path: DIR/htpasswd\n")
    }

    /// One with TLS, whose certificate is signed by an authority of its own.
    pub fn start_with_tls() -> Self {
        Self::start_with("  tls:\n    certificate: DIR/registry.crt\n    key: DIR/registry.key\n")
    }

    /// The folder with `ca.crt`, that of the authority of a registry with TLS.
    pub fn authority(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(self.dir.path().join("ca.crt"), folder.path().join("ca.crt")).unwrap();
        folder
    }

    fn start_with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if more.contains("tls") {
            let name = format!("tests {}", dir.path().file_name().unwrap().display());
            let mut openssl = Command::new("sh");
            openssl.args(["-ec", CERTIFICATES]).env("CA", name).current_dir(dir.path());
            let made = openssl.output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        // Another process may take the port first; then the registry ends, and we choose again.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let text = format!(
                "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: \
                 DIR/data\nhttp:\n  addr: 127.0.0.1:{port}\n{more}"
            );
            let config = dir.path().join("config.yml");
            fs::write(&config, text.replace("DIR", dir.path().to_str().unwrap())).unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(fs::File::create(dir.path().join("log")).unwrap())
                .spawn()
                .expect("docker-registry starts; scripts/test installs it");
            if listens(port, &mut process) {
                return Self { process, dir, port };
            }
        }
        panic!("no registry: {}", fs::read_to_string(dir.path().join("log")).unwrap());
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it keeps a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let digits = digest.trim_start_matches("sha256:");
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digits[..2]).join(digits).join("data")
    }

    /// A proxy in front of it that breaks the first `broken` connections that carry more than
    /// `limit` bytes of answers.
    pub fn proxy(&self, broken: usize, limit: usize) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(String::new()));
        let (log, upstream, left) = (asked.clone(), self.port, Arc::new(AtomicUsize::new(broken)));
        // Ends with the test's process: accept has no end of its own.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (log, left) = (log.clone(), left.clone());
                thread::spawn(move || serve(client.unwrap(), upstream, &log, &left, limit));
            }
        });
        Proxy { port, asked }
    }
}

impl Registry {
    /// A proxy in front of it that refuses each request once, as a registry does that is busy (GET)
    /// or ill (others).
    pub fn moody(&self) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(String::new()));
        let (log, upstream) = (asked.clone(), self.port);
        // Ends with the test's process: accept has no end of its own.
        thread::spawn(move || {
            for client in listener.incoming() {
                let log = log.clone();
                thread::spawn(move || serve_moodily(client.unwrap(), upstream, &log));
            }
        });
        Proxy { port, asked }
    }
}

/// One request a connection, so that every request is seen.
fn serve_moodily(mut client: TcpStream, upstream: u16, log: &Mutex<String>) {
    let mut head = Vec::new();
    let end = loop {
        let mut buffer = [0; 1 << 12];
        let Ok(count @ 1..) = client.read(&mut buffer) else { return };
        head.extend_from_slice(&buffer[..count]);
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned() + "\n";
    // An upload's place is another for each attempt.
    let line = match line.split_once("/blobs/uploads/") {
        Some((start, _)) => format!("{start}/blobs/uploads/"),
        None => line,
    };
    let is_new = {
        let mut log = log.lock().unwrap();
        let is_new = !log.contains(&line);
        log.push_str(&line);
        log.push('\n');
        is_new
    };
    if is_new {
        let status = match line.starts_with("GET") {
            true => "429 Too Many Requests",
            false => "503 Service Unavailable",
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = client.write_all(answer.as_bytes());
        // What is still being sent would otherwise reset the connection before the answer is read.
        let _ = client.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut client, &mut std::io::sink());
        return;
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
    let (request, body) = head.split_at(end - 2);
    server.write_all(request).unwrap();
    server.write_all(b"Connection: close\r\n").unwrap();
    server.write_all(body).unwrap();
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until the port answers; false when the process has ended.
fn listens(port: u16, process: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the registry does not listen");
}

pub struct Proxy {
    port: u16,
    asked: Arc<Mutex<String>>,
}

impl Proxy {
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// All requests so far, in lower case.
    pub fn asked(&self) -> String {
        self.asked.lock().unwrap().to_lowercase()
    }
}

fn serve(
    client: TcpStream,
    upstream: u16,
    log: &Mutex<String>,
    broken: &AtomicUsize,
    limit: usize,
) {
    let server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(count @ 1..) = from_client.read(&mut buffer) {
                log.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
                if to_server.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown(Shutdown::Both);
        });
        answer(&server, &client, broken, limit);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn answer(mut server: &TcpStream, mut client: &TcpStream, broken: &AtomicUsize, limit: usize) {
    let (mut buffer, mut total) = ([0; 1 << 14], 0);
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        total += count;
        let take = |left: usize| left.checked_sub(1);
        if total > limit && broken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            return;
        }
        if client.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
