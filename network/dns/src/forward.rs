//! Questions that the network has no answer to go to the host's resolvers, of `/etc/resolv.conf`. We are
//! on the host: one that listens on its loopback interface only (systemd-resolved) is as good as any.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::answer::{LARGEST_UDP, is_reply};

/// resolv.conf(5), MAXNS.
const MAX_RESOLVERS: usize = 3;
/// For each of them.
const TIMEOUT: Duration = Duration::from_secs(2);
const PORT: u16 = 53;
/// A resolv.conf is short.
const MAX_FILE: u64 = 1 << 16;

/// The host's resolvers, but for `own`, which would ask us.
pub fn resolvers(own: &[IpAddr]) -> Vec<SocketAddr> {
    let mut text = String::new();
    let read = fs::File::open("/etc/resolv.conf")
        .and_then(|it| it.take(MAX_FILE).read_to_string(&mut text));
    match read {
        Ok(_) => parse(&text, own),
        Err(_) => Vec::new(),
    }
}

fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    let others = text.lines().filter_map(address).filter(|address| !own.contains(address));
    others.take(MAX_RESOLVERS).map(|address| SocketAddr::new(address, PORT)).collect()
}

/// Asks one resolver after the other by a datagram. None when nobody answers.
pub fn by_datagram(query: &[u8], resolvers: &[SocketAddr]) -> Option<Vec<u8>> {
    resolvers.iter().find_map(|resolver| ask_by_datagram(query, *resolver).ok())
}

fn ask_by_datagram(query: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    // A port of its own for each question (RFC 5452, 9.2), and connected: the kernel takes answers of the
    // resolver alone.
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(resolver)?;
    socket.send(query)?;
    let until = Instant::now() + TIMEOUT;
    let mut buffer = [0; LARGEST_UDP];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        if is_reply(query, &buffer[..length]) {
            return Ok(buffer[..length].to_vec());
        }
    }
}

/// Likewise by a stream.
pub fn by_stream(query: &[u8], resolvers: &[SocketAddr]) -> Option<Vec<u8>> {
    resolvers.iter().find_map(|resolver| ask_by_stream(query, *resolver).ok())
}

fn ask_by_stream(query: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&resolver, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write_message(&mut stream, query)?;
    let reply = read_message(&mut stream)?;
    match is_reply(query, &reply) {
        true => Ok(reply),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// RFC 1035, 4.2.2: two bytes of length go before a message.
pub fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Likewise, in one segment.
pub fn write_message(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_resolvers_are_found() {
        let text = "# nameserver 1.1.1.1\nsearch lan\nnameserver 127.0.0.53\n nameserver\tfd00::1 x\n\
                    nameserver 10.1.0.1\nnameserver web\nnameserver\nnameserver 9.9.9.9\nnameserver 8.8.8.8\n";
        let found = parse(text, &["10.1.0.1".parse().unwrap()]);
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.53:53", "[fd00::1]:53", "9.9.9.9:53"]);
    }
}
