//! A connection to a message bus, for one call at a time (D-Bus Specification, "Authentication Protocol").
//!
//! Written here, some 400 lines with the messages: of the crates, rustbus 0.19 brings nix 0.26, syn 1 and bitflags 1 with
//! it, zbus an async runtime, dbus a C library.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wire::{self, Argument, Message, Method};

/// How long systemd may take for an answer, or a job: the usual time for jobs that do nothing is milliseconds.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Signals that wait to be looked at; more than a job's are not sent to us.
const MAX_SIGNALS: usize = 4096;
/// A line of the authentication.
const MAX_LINE: usize = 512;

/// The bus itself.
const BUS: Method<'static> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects to the first of `addresses` (`unix:path=…;unix:abstract=…`) that can be connected to.
    pub fn connect(addresses: &str) -> Result<Self> {
        let words = || format!("cannot connect to the message bus at {addresses}");
        let stream = addresses.split(';').map(open).find_map(Result::ok);
        let Some(stream) = stream else {
            // Once more, for the reason.
            return Err(open(addresses.split(';').next().unwrap_or_default())
                .err()
                .unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
            .with_context(words);
        };
        let mut bus = Bus { stream, serial: 0, signals: VecDeque::new() };
        bus.authenticate().with_context(words)?;
        bus.call(BUS, &[])?;
        Ok(bus)
    }

    /// By our credentials, which the other side has from the kernel: no number has to be told, which inside a user
    /// namespace would be another.
    fn authenticate(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(TIME_LIMIT))?;
        self.stream.set_write_timeout(Some(TIME_LIMIT))?;
        self.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
        self.expect("DATA")?;
        self.stream.write_all(b"DATA\r\n")?;
        self.expect("OK")?;
        self.stream.write_all(b"BEGIN\r\n")
    }

    fn expect(&mut self, word: &str) -> io::Result<()> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if line.starts_with(word.as_bytes()) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        Err(io::Error::other(format!("it answers {:?} to our authentication", text.trim_end())))
    }

    /// Has signals sent to us that match this rule.
    pub fn listen(&mut self, rule: &str) -> Result<()> {
        self.call(Method { member: "AddMatch", ..BUS }, &[Argument::Text(rule)]).map(drop)
    }

    /// Calls, and waits for the answer.
    pub fn call(&mut self, method: Method, arguments: &[Argument]) -> Result<Message> {
        let words = || format!("cannot call {}", method.member);
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&wire::call(serial, method, arguments)).with_context(words)?;
        loop {
            let message = self.receive().with_context(words)?;
            if message.kind == wire::SIGNAL {
                if self.signals.len() == MAX_SIGNALS {
                    self.signals.pop_front();
                }
                self.signals.push_back(message);
            } else if message.answers == serial {
                return match &message.error {
                    None => Ok(message),
                    Some(name) => {
                        Err(Refused { name: name.clone(), text: message.texts.join(" ") })
                            .with_context(words)
                    }
                };
            }
        }
    }

    /// The next signal, which may have come before.
    pub fn signal(&mut self) -> Result<Message> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive().context("cannot wait for a signal")?;
            if message.kind == wire::SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let mut fixed = [0; wire::FIXED];
        self.stream.read_exact(&mut fixed).context("the bus does not answer")?;
        let rest = wire::rest(&fixed).context("the bus sends what is no message of D-Bus")?;
        let mut message = fixed.to_vec();
        message.resize(wire::FIXED + rest, 0);
        self.stream.read_exact(&mut message[wire::FIXED..]).context("the bus does not answer")?;
        match wire::parse(&message) {
            Some(message) => Ok(message),
            None => bail!("the bus sends what is no message of D-Bus"),
        }
    }
}

/// An error that was answered.
#[derive(Debug)]
pub struct Refused {
    pub name: String,
    text: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.name)
    }
}

impl std::error::Error for Refused {}

/// Opens one address ("Server Addresses").
fn open(address: &str) -> io::Result<UnixStream> {
    let invalid = || io::Error::other(format!("{address:?} is no address of a Unix socket"));
    let keys = address.strip_prefix("unix:").ok_or_else(invalid)?;
    let of = |wanted: &str| {
        keys.split(',').find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('='))
    };
    if let Some(path) = of("path") {
        return UnixStream::connect(String::from_utf8(unescape(path)).map_err(|_| invalid())?);
    }
    let name = of("abstract").ok_or_else(invalid)?;
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(unescape(name))?)
}

/// `%XX` stands for a byte; what is malformed stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]),
            None => (bytes.push(*first), rest = tail),
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(unescape("/run/a%20b%"), b"/run/a b%");
        for (address, words) in [
            ("tcp:host=x", "no address of a Unix socket"),
            ("unix:tmpdir=/tmp", "no address of a Unix socket"),
            (
                "unix:path=/absent/socket",
                "cannot connect to the message bus at unix:path=/absent/socket",
            ),
        ] {
            let error = Bus::connect(address).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
    }
}
