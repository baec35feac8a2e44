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

/// How many requests are sent.
#[derive(Clone, Copy)]
pub enum Amount {
    Number(u32),
    /// As many as are answered until then.
    Time(Duration),
}

impl Amount {
    /// `1000`, or `5s`; at least one, for an hour at most.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('s') {
            Some(seconds) => {
                let seconds = seconds.parse().ok().filter(|it| (1..=3600).contains(it))?;
                Some(Self::Time(Duration::from_secs(seconds)))
            }
            None => Some(Self::Number(text.parse().ok().filter(|it| *it > 0)?)),
        }
    }

    fn is_reached(self, count: u32, time: Duration) -> bool {
        match self {
            Self::Number(number) => count >= number,
            Self::Time(limit) => count > 0 && time >= limit,
        }
    }
}

/// What was done, one after the other.
pub struct Exchanges {
    pub count: u32,
    /// Nanoseconds that one took, on average.
    pub each: f64,
}

/// Does it again until `amount` is reached.
fn again(amount: Amount, mut exchange: impl FnMut() -> io::Result<()>) -> io::Result<Exchanges> {
    let (begun, mut count) = (Instant::now(), 0);
    loop {
        let time = begun.elapsed();
        if amount.is_reached(count, time) {
            return Ok(Exchanges { count, each: time.as_nanos() as f64 / f64::from(count) });
        }
        exchange()?;
        count += 1;
    }
}

/// Requests of `size` bytes and their answers, on one connection.
///
/// # Errors
/// There is no server, or it does not answer.
pub fn request(address: &str, size: u32, amount: Amount) -> io::Result<Exchanges> {
    let mut message = vec![0x5a; size as usize];
    let mut stream = connect(address, size)?;
    again(amount, || exchange(&mut stream, &mut message))
}

/// `count` connections, each with a request of one byte and its answer.
///
/// # Errors
/// There is no server, or it does not answer.
pub fn connections(address: &str, count: u32) -> io::Result<Exchanges> {
    again(Amount::Number(count), || exchange(&mut connect(address, 1)?, &mut [0x5a]))
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
        for (size, number) in [(64, 3), (200_000, 2)] {
            let done = request(&address, size, Amount::Number(number)).unwrap();
            assert!(done.count == number && done.each > 0.0);
        }
        let second = request(&address, 64, Amount::Time(Duration::from_millis(20))).unwrap();
        assert!(f64::from(second.count) * second.each >= 20e6);
        assert_eq!(connections(&address, 5).unwrap().count, 5);
        // More than it takes: it says no more.
        assert!(request(&address, LARGEST + 1, Amount::Number(1)).is_err());
    }

    #[test]
    fn amounts_are_numbers_or_seconds() {
        assert!(matches!(Amount::parse("1000"), Some(Amount::Number(1000))));
        assert!(matches!(Amount::parse("5s"), Some(Amount::Time(time)) if time.as_secs() == 5));
        for bad in ["", "0", "0s", "s", "-1", "1.5s", "4000s", "5m"] {
            assert!(Amount::parse(bad).is_none(), "{bad}");
        }
    }
}
