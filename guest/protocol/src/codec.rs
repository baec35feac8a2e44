//! Frames of the control channel: a kind of one byte, the process it is about in two, the payload's
//! length in four (both little-endian), the payload.

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::ProcessId;

/// Bytes in front of a payload.
pub const HEADER_LENGTH: usize = 7;

/// What one side says to the other.
pub trait Message: Sized {
    /// The longest payload that the reader takes, in bytes.
    const MAX_PAYLOAD: usize;

    /// The kind and the payload.
    fn to_parts(&self) -> (u8, Cow<'_, [u8]>);

    /// # Errors
    /// [`FrameError::UnknownKind`], or [`FrameError::Malformed`] where the payload does not fit the kind.
    fn from_parts(kind: u8, payload: &[u8]) -> Result<Self, FrameError>;
}

/// Bytes that are no frame; the other side is broken or hostile.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame of that side has this kind.
    #[error("the control channel carries a frame of unknown kind {0:#x}")]
    UnknownKind(u8),
    /// Longer than [`Message::MAX_PAYLOAD`].
    #[error("the control channel carries a frame of {length} bytes, more than {most}")]
    TooLong {
        /// What the header says.
        length: usize,
        /// What is allowed.
        most: usize,
    },
    /// The payload does not fit the kind.
    #[error("the control channel carries a malformed frame of kind {0:#x}")]
    Malformed(u8),
}

/// A message about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    /// Which one.
    pub process: ProcessId,
    /// What of it.
    pub message: M,
}

impl<M: Message> Frame<M> {
    /// Adds the frame to `line`. The sender sees to it that its payload is not too long for the reader.
    pub fn encode_to(&self, line: &mut Vec<u8>) {
        let (kind, payload) = self.message.to_parts();
        line.extend(header(kind, self.process, payload.len()));
        line.extend_from_slice(&payload);
    }

    /// The frame alone.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = Vec::new();
        self.encode_to(&mut line);
        line
    }
}

/// What comes in front of a payload of `length` bytes.
pub(crate) fn header(kind: u8, process: ProcessId, length: usize) -> [u8; HEADER_LENGTH] {
    let [p0, p1] = process.to_le_bytes();
    // No payload comes near 4 GiB.
    let [l0, l1, l2, l3] = (length as u32).to_le_bytes();
    [kind, p0, p1, l0, l1, l2, l3]
}

/// Puts frames together from the bytes of the line, however they are cut.
#[derive(Debug)]
pub struct Decoder<M> {
    /// What arrived, from `start` on not yet taken.
    pending: Vec<u8>,
    start: usize,
    message: PhantomData<fn() -> M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self { pending: Vec::new(), start: 0, message: PhantomData }
    }
}

impl<M: Message> Decoder<M> {
    /// Takes what arrived. Ask [`Decoder::next_frame`] until it has no more, and the decoder never
    /// holds more than one unfinished frame.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.start);
        self.start = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    ///
    /// # Errors
    /// [`FrameError`]; the channel cannot be used any further, as frames carry no marks to find
    /// the next one by.
    pub fn next_frame(&mut self) -> Result<Option<Frame<M>>, FrameError> {
        let rest = &self.pending[self.start..];
        let [kind, p0, p1, l0, l1, l2, l3, rest @ ..] = rest else { return Ok(None) };
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        if length > M::MAX_PAYLOAD {
            return Err(FrameError::TooLong { length, most: M::MAX_PAYLOAD });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let message = M::from_parts(*kind, payload)?;
        self.start += HEADER_LENGTH + length;
        Ok(Some(Frame { process: u16::from_le_bytes([*p0, *p1]), message }))
    }
}
