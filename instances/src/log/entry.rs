//! A line of a log.

use crate::time::Timestamp;

/// Which of a workload's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output, or its terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a workload wrote, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When we read it.
    pub time: Timestamp,
    /// Where it was written to.
    pub stream: Stream,
    /// Whether the line ends here.
    pub is_whole: bool,
    /// What was written, without the line's end.
    pub text: Vec<u8>,
}

impl LogEntry {
    pub(super) fn encode(time: Timestamp, stream: Stream, text: &[u8], is_whole: bool) -> Vec<u8> {
        let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        let tag = if is_whole { 'F' } else { 'P' };
        let mut line = format!("{time} {name} {tag} ").into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        line
    }

    /// None of what is no entry: half of one, as a full disk leaves it.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let is_whole = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, is_whole, text: parts.next()?.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive() {
        for text in [&b""[..], b" ", b"a b  c", b"\xff\0\r"] {
            for (stream, is_whole) in [(Stream::Stdout, true), (Stream::Stderr, false)] {
                let time = Timestamp::now();
                let line = LogEntry::encode(time, stream, text, is_whole);
                let read = LogEntry::parse(line.strip_suffix(b"\n").unwrap());
                assert_eq!(read, Some(LogEntry { time, stream, is_whole, text: text.to_vec() }));
            }
        }
        for bad in
            ["", "x", "2026-11-27T23:50:44Z", "2026-11-27T23:50:44Z stdin F x", "\u{fc} stdout F x"]
        {
            assert_eq!(LogEntry::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
