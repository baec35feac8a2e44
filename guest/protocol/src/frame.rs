//! Frames of the control channel: a type byte, a little-endian 16-bit length, a payload.

/// The largest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 4096;

/// How many bytes of standard input the host may send beyond what the workload has taken. A serial line has no flow control that reaches into the guest, and its tty layer
/// drops what nobody reads; this window fits into that layer's buffers.
pub const STDIN_WINDOW: usize = 2048;

/// A message between host and init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Guest: the workload wrote to standard output.
    Stdout(Vec<u8>),
    /// Guest: the workload wrote to standard error.
    Stderr(Vec<u8>),
    /// Guest: the host may send that many more bytes of standard input. The first one, of
    /// [`STDIN_WINDOW`], also says that the guest listens: what is sent to a serial line before
    /// the guest has opened it is lost.
    StdinCredit(u32),
    /// Guest: the workload was not started, and this is the exit code that says so (126 or 127)
    /// and why.
    NotStarted(u8, String),
    /// Guest: the workload exited with this code.
    Exited(u8),
    /// Guest: the workload was killed by this signal.
    Killed(u8),
    /// Guest: init itself failed.
    Failed(String),
    /// Host: standard input. Empty means its end.
    Stdin(Vec<u8>),
    /// Host: send this signal to the workload.
    Signal(u8),
    /// Host: nobody reads standard output any more; who writes to it has to know.
    StdoutClosed,
    /// Host: the same of standard error.
    StderrClosed,
}

/// Bytes that are no frame; the other side is broken or hostile.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame has this type.
    #[error("the control channel carries a frame of unknown type {0:#x}")]
    UnknownType(u8),
    /// Longer than [`MAX_PAYLOAD`].
    #[error("the control channel carries a frame of {0} bytes, more than {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The payload does not fit the type.
    #[error("the control channel carries a malformed frame of type {0:#x}")]
    Malformed(u8),
}

const HEADER: usize = 3;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STDIN_CREDIT: u8 = 3;
const NOT_STARTED: u8 = 4;
const EXITED: u8 = 5;
const KILLED: u8 = 6;
const FAILED: u8 = 7;
const STDIN: u8 = 0x81;
const SIGNAL: u8 = 0x82;
const STDOUT_CLOSED: u8 = 0x83;
const STDERR_CLOSED: u8 = 0x84;

impl Frame {
    /// The frame as it goes over the line. Payloads beyond [`MAX_PAYLOAD`] are cut; senders of
    /// streams send several frames instead.
    pub fn encode(&self) -> Vec<u8> {
        let mut message;
        let number;
        let (kind, payload): (u8, &[u8]) = match self {
            Frame::Stdout(data) => (STDOUT, data),
            Frame::Stderr(data) => (STDERR, data),
            Frame::StdinCredit(count) => {
                number = count.to_le_bytes();
                (STDIN_CREDIT, &number)
            }
            Frame::NotStarted(code, why) => {
                message = vec![*code];
                message.extend_from_slice(why.as_bytes());
                (NOT_STARTED, &message)
            }
            Frame::Exited(code) => (EXITED, std::slice::from_ref(code)),
            Frame::Killed(signal) => (KILLED, std::slice::from_ref(signal)),
            Frame::Failed(why) => (FAILED, why.as_bytes()),
            Frame::Stdin(data) => (STDIN, data),
            Frame::Signal(signal) => (SIGNAL, std::slice::from_ref(signal)),
            Frame::StdoutClosed => (STDOUT_CLOSED, &[]),
            Frame::StderrClosed => (STDERR_CLOSED, &[]),
        };
        let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
        let length = (payload.len() as u16).to_le_bytes();
        [&[kind, length[0], length[1]], payload].concat()
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let malformed = FrameError::Malformed(kind);
        Ok(match (kind, payload) {
            (STDOUT, data) => Frame::Stdout(data.to_vec()),
            (STDERR, data) => Frame::Stderr(data.to_vec()),
            (STDIN_CREDIT, data) => {
                Frame::StdinCredit(u32::from_le_bytes(data.try_into().map_err(|_| malformed)?))
            }
            (NOT_STARTED, [code, why @ ..]) => Frame::NotStarted(*code, text(why)),
            (EXITED, [code]) => Frame::Exited(*code),
            (KILLED, [signal]) => Frame::Killed(*signal),
            (FAILED, why) => Frame::Failed(text(why)),
            (STDIN, data) => Frame::Stdin(data.to_vec()),
            (SIGNAL, [signal]) => Frame::Signal(*signal),
            (STDOUT_CLOSED, []) => Frame::StdoutClosed,
            (STDERR_CLOSED, []) => Frame::StderrClosed,
            (NOT_STARTED | EXITED | KILLED | SIGNAL | STDOUT_CLOSED | STDERR_CLOSED, _) => {
                return Err(malformed);
            }
            (other, _) => return Err(FrameError::UnknownType(other)),
        })
    }
}

/// Puts frames together from the bytes of the line, however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes what arrived. Ask [`Decoder::next_frame`] until it has no more, and the decoder never
    /// holds more than one unfinished frame.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    ///
    /// # Errors
    /// [`FrameError`]; the channel cannot be used any further, as frames carry no marks to find
    /// the next one by.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let [kind, low, high, ..] = self.pending[..] else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes([low, high]));
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let Some(payload) = self.pending.get(HEADER..HEADER + length) else { return Ok(None) };
        let frame = Frame::decode(kind, payload)?;
        self.pending.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Frame> {
        vec![
            Frame::Stdout(b"out\n".to_vec()),
            Frame::Stderr(vec![0; MAX_PAYLOAD]),
            Frame::StdinCredit(70_000),
            Frame::NotStarted(127, "no such file".to_owned()),
            Frame::Exited(3),
            Frame::Killed(9),
            Frame::Failed("mount /proc: EPERM".to_owned()),
            Frame::Stdin(Vec::new()),
            Frame::Signal(15),
            Frame::StdoutClosed,
            Frame::StderrClosed,
        ]
    }

    #[test]
    fn frames_survive_any_cut_of_the_line() {
        let line: Vec<u8> = examples().iter().flat_map(Frame::encode).collect();
        for cut in [1, 2, 3, 5, 4096, line.len()] {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for piece in line.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, examples(), "cut into pieces of {cut}");
        }
    }

    #[test]
    fn hostile_bytes_are_errors() {
        let decode = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next_frame()
        };
        assert_eq!(decode(&[0x77, 0, 0]), Err(FrameError::UnknownType(0x77)));
        assert_eq!(decode(&[STDOUT, 1, 16]), Err(FrameError::TooLong(4097)));
        assert_eq!(decode(&[EXITED, 0, 0]), Err(FrameError::Malformed(EXITED)));
        assert_eq!(decode(&[STDIN_CREDIT, 1, 0, 0]), Err(FrameError::Malformed(STDIN_CREDIT)));
        assert_eq!(decode(&[STDOUT, 5]), Ok(None));
    }
}
