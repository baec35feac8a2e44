//! Requests and answers of a size over TCP, one after the other, and connections: both ends.
//!
//! A connection begins with the size, four bytes, the least significant first; then each request is so many bytes, and so is
//! its answer.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The largest message, so that nobody makes a server want memory.
const LARGEST: u32 = 16 << 20;
/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers at `address` until it is ended; says when it listens.
///
/// # Errors
/// Nobody can listen there.
pub fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "listens")?;
    loop {
        let (stream, _) = listener.accept()?;
        // Who goes away, or says what is no size, is done.
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = u32::from_le_bytes(size);
    if !(1..=LARGEST).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; size as usize];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

/// The mean nanoseconds of `count` requests of `size` bytes and their answers, on one connection.
///
/// # Errors
/// There is no server, or it does not answer.
pub fn request(address: &str, size: u32, count: u32) -> io::Result<f64> {
    let mut message = vec![0x5a; size as usize];
    let mut stream = connect(address, size)?;
    let begun = Instant::now();
    for _ in 0..count {
        exchange(&mut stream, &mut message)?;
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(count))
}

/// The mean nanoseconds of `count` connections, each with a request of one byte and its answer.
///
/// # Errors
/// There is no server, or it does not answer.
pub fn connections(address: &str, count: u32) -> io::Result<f64> {
    let begun = Instant::now();
    for _ in 0..count {
        exchange(&mut connect(address, 1)?, &mut [0x5a])?;
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(count))
}

fn connect(address: &str, size: u32) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&size.to_le_bytes())?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, message: &mut [u8]) -> io::Result<()> {
    stream.write_all(message)?;
    stream.read_exact(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || answer(stream.unwrap()));
            }
        });
        assert!(request(&address, 64, 3).unwrap() > 0.0);
        assert!(request(&address, 200_000, 2).unwrap() > 0.0);
        assert!(connections(&address, 5).unwrap() > 0.0);
        // More than it takes: it says no more.
        assert!(request(&address, LARGEST + 1, 1).is_err());
    }
}
