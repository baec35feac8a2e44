//! Clients of every kind against a handler that is no machine.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::mpsc;

use serde_json::json;

use super::super::client::{self, ClientError};
use super::*;

/// A server, its socket, and a client's view of it.
struct Rig {
    server: Option<Server>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(|request| match request {
            Request::Balloon { .. } => Err("no balloon".into()),
            other => Ok(json!({ "asked": format!("{other:?}") })),
        })
    }

    fn with(handler: impl Fn(Request) -> Result<Value, String> + Send + Sync + 'static) -> Self {
        Self::with_limit(handler, IDLE_LIMIT)
    }

    fn with_limit(
        handler: impl Fn(Request) -> Result<Value, String> + Send + Sync + 'static,
        limit: Duration,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let server = Some(Server::with_idle_limit(&path, handler, limit).unwrap());
        Self { server, path, _dir: dir }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(&self.path).unwrap())
    }
}

/// The next reply; `None` when the connection was closed.
fn hear(stream: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(0) => None,
        Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        // Closed with something of ours unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

fn say(stream: &mut BufReader<UnixStream>, bytes: &[u8]) {
    // A server that has heard enough may have closed.
    let _ = stream.get_mut().write_all(bytes);
}

#[test]
fn requests_are_answered_in_order_whole_or_in_pieces() {
    let rig = Rig::new();
    let mut stream = rig.connect();
    say(&mut stream, b"{\"command\":\"in");
    say(&mut stream, b"fo\"}\n{\"command\":\"balloon\"}\n{\"command\":\"kill\"}\n");
    assert_eq!(hear(&mut stream).unwrap(), json!({"ok": {"asked": "Info"}}));
    assert_eq!(hear(&mut stream).unwrap(), json!({"error": "no balloon"}));
    assert_eq!(hear(&mut stream).unwrap(), json!({"ok": {"asked": "Kill"}}));
}

#[test]
fn garbage_is_answered_and_the_connection_lives_on() {
    let rig = Rig::new();
    let mut stream = rig.connect();
    for garbage in [&b"\n"[..], b"hello\n", b"\xff\xfe\0\n", b"{\"command\":\"x\"}\n"] {
        say(&mut stream, garbage);
        let reply = hear(&mut stream).unwrap();
        assert!(reply["error"].as_str().unwrap().contains("not understood"), "{reply}");
    }
    let nested = [b'['; MAX_REQUEST];
    say(&mut stream, &nested);
    say(&mut stream, b"\n{\"command\":\"info\"}\n");
    assert!(hear(&mut stream).unwrap()["error"].is_string());
    assert!(hear(&mut stream).unwrap()["ok"].is_object());
}

#[test]
fn a_line_without_end_is_cut_off() {
    let rig = Rig::new();
    for end in [&b""[..], b"\n"] {
        let mut stream = rig.connect();
        for _ in 0..64 {
            say(&mut stream, &[b'x'; 4096]);
        }
        say(&mut stream, end);
        // The answer may be lost with the connection, as data of ours was still under way.
        if let Some(reply) = hear(&mut stream) {
            assert!(reply["error"].as_str().unwrap().contains("longer than"), "{reply}");
            assert_eq!(hear(&mut stream), None);
        }
    }
    assert!(client::call::<Value>(&rig.path, Request::Info {}).is_ok());
}

#[test]
fn a_half_closed_connection_gets_its_answers() {
    let rig = Rig::new();
    let mut stream = rig.connect();
    say(&mut stream, b"{\"command\":\"info\"}\n{\"command\":\"stats\"}");
    stream.get_ref().shutdown(Shutdown::Write).unwrap();
    assert!(hear(&mut stream).unwrap()["ok"].is_object());
    assert_eq!(hear(&mut stream).unwrap(), json!({"ok": {"asked": "Stats"}}));
    assert_eq!(hear(&mut stream), None);
}

#[test]
fn too_many_connections_are_refused_and_room_is_made_again() {
    let rig = Rig::new();
    let mut admitted: Vec<_> = (0..MAX_CONNECTIONS).map(|_| rig.connect()).collect();
    for stream in &mut admitted {
        say(stream, b"{\"command\":\"info\"}\n");
        assert!(hear(stream).unwrap()["ok"].is_object());
    }
    for _ in 0..100 {
        let mut stream = rig.connect();
        let reply = hear(&mut stream).unwrap();
        assert!(reply["error"].as_str().unwrap().contains("too many"), "{reply}");
        assert_eq!(hear(&mut stream), None);
    }
    // The end of its connection tells that a thread is about to end; the next client may still
    // come too early, so it tries again.
    drop(admitted);
    while client::call::<Value>(&rig.path, Request::Info {}).is_err() {
        thread::yield_now();
    }
}

#[test]
fn a_silent_client_is_dropped() {
    let rig = Rig::with_limit(|_| Ok(Value::Null), Duration::from_millis(20));
    let mut stream = rig.connect();
    say(&mut stream, b"{\"comm");
    assert_eq!(hear(&mut stream), None);
}

#[test]
fn a_client_that_takes_no_answers_does_not_hold_up_the_end() {
    let mut rig = Rig::with(|_| Ok("x".repeat(1 << 20).into()));
    let mut stream = rig.connect();
    say(&mut stream, b"{\"command\":\"info\"}\n");
    rig.server = None;
    assert!(!rig.path.exists());
}

#[test]
fn requests_under_way_are_answered_before_the_end() {
    let (begun, has_begun) = mpsc::channel();
    let (finish, may_finish) = mpsc::channel::<()>();
    let may_finish = Mutex::new(may_finish);
    let mut rig = Rig::with(move |_| {
        begun.send(()).unwrap();
        may_finish.lock().unwrap().recv().unwrap();
        Ok("done".into())
    });
    let mut stream = rig.connect();
    let mut idle = rig.connect();
    say(&mut stream, b"{\"command\":\"stop\"}\n");
    has_begun.recv().unwrap();
    let server = rig.server.take();
    let dropping = thread::spawn(move || drop(server));
    assert_eq!(hear(&mut idle), None);
    finish.send(()).unwrap();
    assert_eq!(hear(&mut stream).unwrap(), json!({"ok": "done"}));
    dropping.join().unwrap();
}

#[test]
fn the_client_tells_refusal_absence_and_nonsense_apart() {
    let mut rig = Rig::new();
    let balloon = client::call::<Value>(&rig.path, Request::Balloon { target: None });
    let Err(ClientError::Refused { message, .. }) = balloon else { panic!("{balloon:?}") };
    assert_eq!(message, "no balloon");
    let wrong = client::call::<u32>(&rig.path, Request::Info {});
    assert!(matches!(wrong, Err(ClientError::Reply { .. })), "{wrong:?}");
    rig.server = None;
    let gone = client::call::<Value>(&rig.path, Request::Info {});
    assert!(matches!(gone, Err(ClientError::Connect { .. })), "{gone:?}");
}
