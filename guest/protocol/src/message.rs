//! What host and guest say to each other.

use std::borrow::Cow;

use crate::codec::{self, FrameError, HEADER_LENGTH, Message};
use crate::process::{Task, WindowSize};

/// A process of the guest that the host knows. The host numbers them, and no two that live have one number.
pub type ProcessId = u16;

/// The workload's number.
pub const WORKLOAD: ProcessId = 0;

/// The longest piece of a stream in one frame, in bytes.
pub const MAX_PIECE: usize = 64 << 10;

/// How many bytes of an output stream the guest may send beyond those that the host has said it passed on.
pub const OUTPUT_WINDOW: usize = 256 << 10;

/// The most that a guest may ask for of standard input beyond what its process has taken, in bytes.
pub const STDIN_WINDOW: usize = 128 << 10;

/// The longest request, in bytes: arguments and environment may have 2 MiB (execve(2)), and JSON needs
/// more of some characters.
const MAX_REQUEST: usize = 4 << 20;

/// One of a process's output streams. A terminal's output is its [`Stream::Stdout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both, in the order of [`Stream::index`].
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// 0 or 1.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromGuest {
    /// The process wrote this: at most [`MAX_PIECE`], within [`OUTPUT_WINDOW`].
    Output(Stream, Vec<u8>),
    /// The host may send that many more bytes of standard input. The first one of a process says that it
    /// runs; the workload's first also that the guest listens: what is sent to a serial line before the
    /// guest has opened it is lost.
    StdinCredit(u32),
    /// It was not started, and this is the exit code that says so (126 or 127) and why. Like every end
    /// of a process, this is the last about it.
    NotStarted(u8, String),
    /// It exited with this code.
    Exited(u8),
    /// It was killed by this signal.
    Killed(u8),
    /// The guest's kernel has killed processes because there was no memory left. It comes before the
    /// workload's end.
    OutOfMemory,
    /// Init itself failed.
    Failed(String),
    /// That many bytes of frames are in the guest's slot of the mailbox, in place of what would have been
    /// sent here.
    InMailbox(u32),
    /// The host's slot of the mailbox is free again.
    MailboxTaken,
    /// To [`FromHost::Ping`].
    Pong,
}

/// What the host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost {
    /// Start this.
    Start(Box<Task>),
    /// Standard input. Empty means its end; a terminal hangs up then.
    Stdin(Vec<u8>),
    /// That many bytes of a stream have been passed on.
    OutputCredit(Stream, u32),
    /// Nobody reads the stream any more; who writes to it has to know.
    OutputClosed(Stream),
    /// Send this signal to the process.
    Signal(u8),
    /// Its terminal has this size now.
    Resize(WindowSize),
    /// As [`FromGuest::InMailbox`], of the host's slot.
    InMailbox(u32),
    /// The guest's slot is free again.
    MailboxTaken,
    /// Say something. Its process has no meaning.
    Ping,
}

const STDOUT: u8 = 0x01;
const STDERR: u8 = 0x02;
const STDIN_CREDIT: u8 = 0x03;
const NOT_STARTED: u8 = 0x04;
const EXITED: u8 = 0x05;
const KILLED: u8 = 0x06;
const FAILED: u8 = 0x07;
const GUEST_IN_MAILBOX: u8 = 0x08;
const GUEST_TOOK_MAILBOX: u8 = 0x09;
const OUT_OF_MEMORY: u8 = 0x0a;
const PONG: u8 = 0x0b;
const STDIN: u8 = 0x81;
const SIGNAL: u8 = 0x82;
const STDOUT_CLOSED: u8 = 0x83;
const STDERR_CLOSED: u8 = 0x84;
const STDOUT_CREDIT: u8 = 0x85;
const STDERR_CREDIT: u8 = 0x86;
const RESIZE: u8 = 0x87;
const START: u8 = 0x88;
const HOST_IN_MAILBOX: u8 = 0x89;
const HOST_TOOK_MAILBOX: u8 = 0x8a;
const PING: u8 = 0x8b;

/// The header of a [`FromGuest::Output`], for who reads a stream right behind it.
pub fn output_header(process: ProcessId, stream: Stream, length: usize) -> [u8; HEADER_LENGTH] {
    codec::header([STDOUT, STDERR][stream.index()], process, length)
}

impl Message for FromGuest {
    const MAX_PAYLOAD: usize = MAX_PIECE;

    fn to_parts(&self) -> (u8, Cow<'_, [u8]>) {
        match self {
            Self::Output(stream, data) => ([STDOUT, STDERR][stream.index()], data.into()),
            Self::StdinCredit(count) => (STDIN_CREDIT, count.to_le_bytes().to_vec().into()),
            Self::NotStarted(code, why) => {
                (NOT_STARTED, [&[*code], cut(why.as_bytes())].concat().into())
            }
            Self::Exited(code) => (EXITED, vec![*code].into()),
            Self::Killed(signal) => (KILLED, vec![*signal].into()),
            Self::OutOfMemory => (OUT_OF_MEMORY, Cow::Borrowed(&[])),
            Self::Failed(why) => (FAILED, cut(why.as_bytes()).into()),
            Self::InMailbox(count) => (GUEST_IN_MAILBOX, count.to_le_bytes().to_vec().into()),
            Self::MailboxTaken => (GUEST_TOOK_MAILBOX, Cow::Borrowed(&[])),
            Self::Pong => (PONG, Cow::Borrowed(&[])),
        }
    }

    fn from_parts(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match (kind, payload) {
            (STDOUT, data) => Self::Output(Stream::Stdout, data.to_vec()),
            (STDERR, data) => Self::Output(Stream::Stderr, data.to_vec()),
            (STDIN_CREDIT, data) => Self::StdinCredit(number(kind, data)?),
            (NOT_STARTED, [code, why @ ..]) => Self::NotStarted(*code, text(why)),
            (EXITED, [code]) => Self::Exited(*code),
            (KILLED, [signal]) => Self::Killed(*signal),
            (OUT_OF_MEMORY, []) => Self::OutOfMemory,
            (FAILED, why) => Self::Failed(text(why)),
            (GUEST_IN_MAILBOX, data) => Self::InMailbox(number(kind, data)?),
            (GUEST_TOOK_MAILBOX, []) => Self::MailboxTaken,
            (PONG, []) => Self::Pong,
            (NOT_STARTED | EXITED | KILLED | OUT_OF_MEMORY | GUEST_TOOK_MAILBOX | PONG, _) => {
                return Err(FrameError::Malformed(kind));
            }
            (other, _) => return Err(FrameError::UnknownKind(other)),
        })
    }
}

impl Message for FromHost {
    const MAX_PAYLOAD: usize = MAX_REQUEST;

    fn to_parts(&self) -> (u8, Cow<'_, [u8]>) {
        match self {
            // Strings, numbers and lists of them always have a form in JSON.
            Self::Start(task) => (START, serde_json::to_vec(task).unwrap_or_default().into()),
            Self::Stdin(data) => (STDIN, data.into()),
            Self::OutputCredit(stream, count) => (
                [STDOUT_CREDIT, STDERR_CREDIT][stream.index()],
                count.to_le_bytes().to_vec().into(),
            ),
            Self::OutputClosed(stream) => {
                ([STDOUT_CLOSED, STDERR_CLOSED][stream.index()], Cow::Borrowed(&[]))
            }
            Self::Signal(signal) => (SIGNAL, vec![*signal].into()),
            Self::Resize(WindowSize { rows, columns }) => {
                (RESIZE, [rows.to_le_bytes(), columns.to_le_bytes()].concat().into())
            }
            Self::InMailbox(count) => (HOST_IN_MAILBOX, count.to_le_bytes().to_vec().into()),
            Self::MailboxTaken => (HOST_TOOK_MAILBOX, Cow::Borrowed(&[])),
            Self::Ping => (PING, Cow::Borrowed(&[])),
        }
    }

    fn from_parts(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let malformed = || FrameError::Malformed(kind);
        Ok(match (kind, payload) {
            (START, json) => Self::Start(serde_json::from_slice(json).map_err(|_| malformed())?),
            (STDIN, data) => Self::Stdin(data.to_vec()),
            (STDOUT_CREDIT, data) => Self::OutputCredit(Stream::Stdout, number(kind, data)?),
            (STDERR_CREDIT, data) => Self::OutputCredit(Stream::Stderr, number(kind, data)?),
            (STDOUT_CLOSED, []) => Self::OutputClosed(Stream::Stdout),
            (STDERR_CLOSED, []) => Self::OutputClosed(Stream::Stderr),
            (SIGNAL, [signal]) => Self::Signal(*signal),
            (RESIZE, [r0, r1, c0, c1]) => Self::Resize(WindowSize {
                rows: u16::from_le_bytes([*r0, *r1]),
                columns: u16::from_le_bytes([*c0, *c1]),
            }),
            (HOST_IN_MAILBOX, data) => Self::InMailbox(number(kind, data)?),
            (HOST_TOOK_MAILBOX, []) => Self::MailboxTaken,
            (PING, []) => Self::Ping,
            (STDOUT_CLOSED | STDERR_CLOSED | SIGNAL | RESIZE | HOST_TOOK_MAILBOX | PING, _) => {
                return Err(malformed());
            }
            (other, _) => return Err(FrameError::UnknownKind(other)),
        })
    }
}

/// Words of ours, none of which comes near this.
fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MAX_PIECE - 1)]
}

fn number(kind: u8, payload: &[u8]) -> Result<u32, FrameError> {
    payload.try_into().map(u32::from_le_bytes).map_err(|_| FrameError::Malformed(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Decoder, Frame};
    use crate::process::{Process, Service};

    fn from_guest() -> Vec<FromGuest> {
        vec![
            FromGuest::Output(Stream::Stdout, b"out\n".to_vec()),
            FromGuest::Output(Stream::Stderr, vec![0; MAX_PIECE]),
            FromGuest::StdinCredit(70_000),
            FromGuest::NotStarted(127, "no such file".to_owned()),
            FromGuest::Exited(3),
            FromGuest::Killed(9),
            FromGuest::OutOfMemory,
            FromGuest::Failed("mount /proc: EPERM".to_owned()),
            FromGuest::InMailbox(1 << 18),
            FromGuest::MailboxTaken,
            FromGuest::Pong,
        ]
    }

    fn from_host() -> Vec<FromHost> {
        let size = WindowSize { rows: 24, columns: 80 };
        let process = Process {
            args: vec!["sh".to_owned()],
            env: vec!["A=\u{1}".to_owned()],
            cwd: "/".to_owned(),
            terminal: Some(size),
            stdin: true,
            ..Process::default()
        };
        vec![
            FromHost::Start(Box::new(Task::Process(process))),
            FromHost::Start(Box::new(Task::Service(Service::Processes))),
            FromHost::Stdin(Vec::new()),
            FromHost::OutputCredit(Stream::Stderr, 1 << 20),
            FromHost::OutputClosed(Stream::Stdout),
            FromHost::Signal(15),
            FromHost::Resize(size),
            FromHost::InMailbox(5),
            FromHost::MailboxTaken,
            FromHost::Ping,
        ]
    }

    /// However the line is cut, the frames come out as they went in.
    fn survives_any_cut<M: Message + Clone + PartialEq + std::fmt::Debug>(messages: Vec<M>) {
        let numbered = |(at, message)| Frame { process: at as u16 * 300, message };
        let frames: Vec<_> = messages.into_iter().enumerate().map(numbered).collect();
        let line: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for cut in [1, 2, 3, 5, 4096, line.len()] {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in line.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            assert!(found == frames, "cut into pieces of {cut}");
        }
    }

    #[test]
    fn frames_survive_any_cut_of_the_line() {
        survives_any_cut(from_guest());
        survives_any_cut(from_host());
    }

    #[test]
    fn a_header_made_by_hand_is_that_of_the_frame() {
        let message = FromGuest::Output(Stream::Stderr, b"text".to_vec());
        let frame = Frame { process: 0x1234, message }.encode();
        assert_eq!(frame[..HEADER_LENGTH], output_header(0x1234, Stream::Stderr, 4));
    }

    #[test]
    fn hostile_bytes_are_errors() {
        fn decode<M: Message>(kind: u8, length: u32, payload: &[u8]) -> Result<bool, FrameError> {
            let mut decoder = Decoder::<M>::default();
            let [l0, l1, l2, l3] = length.to_le_bytes();
            decoder.push(&[kind, 0, 0, l0, l1, l2, l3]);
            decoder.push(payload);
            decoder.next_frame().map(|frame| frame.is_some())
        }
        let guest = decode::<FromGuest>;
        assert_eq!(guest(0x77, 0, &[]), Err(FrameError::UnknownKind(0x77)));
        assert_eq!(guest(STDIN, 0, &[]), Err(FrameError::UnknownKind(STDIN)));
        // Refused by its header: what it announces is never waited for, nor kept.
        let length = MAX_PIECE + 1;
        let too_long = Err(FrameError::TooLong { length, most: MAX_PIECE });
        assert_eq!(guest(STDOUT, length as u32, &[]), too_long);
        assert!(matches!(guest(STDOUT, u32::MAX, &[]), Err(FrameError::TooLong { .. })));
        assert_eq!(guest(EXITED, 0, &[]), Err(FrameError::Malformed(EXITED)));
        assert_eq!(guest(NOT_STARTED, 0, &[]), Err(FrameError::Malformed(NOT_STARTED)));
        assert_eq!(guest(KILLED, 2, &[9, 2]), Err(FrameError::Malformed(KILLED)));
        assert_eq!(guest(STDIN_CREDIT, 3, &[1, 2, 3]), Err(FrameError::Malformed(STDIN_CREDIT)));
        assert_eq!(guest(STDOUT, 5, b"text"), Ok(false));
        let host = decode::<FromHost>;
        assert_eq!(host(STDOUT, 0, &[]), Err(FrameError::UnknownKind(STDOUT)));
        assert_eq!(host(START, 2, b"{}"), Err(FrameError::Malformed(START)));
        assert_eq!(host(PING, 1, &[1]), Err(FrameError::Malformed(PING)));
        assert_eq!(host(RESIZE, 3, &[1, 2, 3]), Err(FrameError::Malformed(RESIZE)));
    }
}
