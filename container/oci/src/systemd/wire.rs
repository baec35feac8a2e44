//! D-Bus's messages (D-Bus Specification, "Type System", "Message Protocol"): calls are written, and of answers what is
//! told in strings is read.

/// The most that is read of one message, bytes; the protocol allows 128 MiB, and what we ask for is short.
pub const MAX_MESSAGE: usize = 1 << 20;
/// What every message begins with.
pub const FIXED: usize = 16;

/// `METHOD_CALL`, `ERROR`, `SIGNAL`.
const CALL: u8 = 1;
const ERROR: u8 = 3;
pub const SIGNAL: u8 = 4;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The type of a property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

/// What a call is given, in order.
#[derive(Debug)]
pub enum Argument<'a> {
    Text(&'a str),
    Flag(bool),
    /// `a(sv)`
    Properties(&'a [(&'a str, Value)]),
    /// `a(sa(sv))`, empty: systemd's auxiliary units.
    NoUnits,
}

impl Argument<'_> {
    fn signature(&self) -> &'static str {
        match self {
            Argument::Text(_) => "s",
            Argument::Flag(_) => "b",
            Argument::Properties(_) => "a(sv)",
            Argument::NoUnits => "a(sa(sv))",
        }
    }
}

/// Whom a call goes to.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// A message, little-endian, growing.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    /// Alignment counts from the message's first byte, as the header has a multiple of 8.
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// `alignment`: of an element. The padding before the first does not count for the length.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length = self.0.len() - 4;
        self.align(alignment);
        let first = self.0.len();
        elements(self);
        let bytes = (self.0.len() - first) as u32;
        self.0[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.number(u32::from(*flag));
            }
            Value::Number(number) => {
                self.signature("t");
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.array(4, |all| numbers.iter().for_each(|number| all.number(*number)));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |all| all.0.extend(bytes));
            }
        }
    }

    fn argument(&mut self, argument: &Argument) {
        match argument {
            Argument::Text(text) => self.text(text),
            Argument::Flag(flag) => self.number(u32::from(*flag)),
            Argument::NoUnits => self.array(8, |_| {}),
            Argument::Properties(properties) => self.array(8, |all| {
                for (name, value) in *properties {
                    all.align(8);
                    all.text(name);
                    all.value(value);
                }
            }),
        }
    }

    fn field(&mut self, code: u8, kind: &str, text: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(kind);
        match kind {
            "g" => self.signature(text),
            _ => self.text(text),
        }
    }
}

/// A method call.
pub fn call(serial: u32, method: Method, arguments: &[Argument]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.argument(argument));
    let signature: String = arguments.iter().map(Argument::signature).collect();
    let mut message = Writer(vec![b'l', CALL, 0, 1]);
    message.number(body.0.len() as u32);
    message.number(serial);
    message.array(8, |fields| {
        fields.field(PATH, "o", method.path);
        fields.field(INTERFACE, "s", method.interface);
        fields.field(MEMBER, "s", method.member);
        fields.field(DESTINATION, "s", method.destination);
        if !signature.is_empty() {
            fields.field(SIGNATURE, "g", &signature);
        }
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// What came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    /// The call that it answers.
    pub answers: u32,
    pub member: String,
    /// Of an error.
    pub error: Option<String>,
    /// The strings of its body, in order, those in variants too; of other types none is kept.
    pub texts: Vec<String>,
}

/// How many bytes follow the fixed part of a message. None: not one that we read.
pub fn rest(fixed: &[u8; FIXED]) -> Option<usize> {
    if fixed[0] != b'l' || fixed[3] != 1 {
        return None;
    }
    let number =
        |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let (body, fields) = (number(4) as usize, number(12) as usize);
    let rest = fields.next_multiple_of(8).checked_add(body)?;
    (rest <= MAX_MESSAGE).then_some(rest)
}

/// A whole message, its fixed part and the rest. None: it is malformed.
pub fn parse(message: &[u8]) -> Option<Message> {
    let mut read = Reader { bytes: message, at: 12 };
    let end = read.number()? as usize + FIXED;
    let mut parsed = Message { kind: *message.get(1)?, ..Message::default() };
    let mut body_signature = String::new();
    while read.at < end {
        read.align(8);
        let code = read.byte()?;
        let kind = read.signature()?;
        match (code, kind.as_str()) {
            (REPLY_SERIAL, "u") => parsed.answers = read.number()?,
            (_, "u") => drop(read.number()?),
            (SIGNATURE, "g") => body_signature = read.signature()?,
            (_, "g") => drop(read.signature()?),
            (MEMBER, "s") => parsed.member = read.text()?,
            (ERROR_NAME, "s") => parsed.error = Some(read.text()?),
            (_, "s" | "o") => drop(read.text()?),
            _ => return None,
        }
    }
    if parsed.kind == ERROR {
        parsed.error.get_or_insert_default();
    }
    read.align(8);
    for kind in body_signature.chars() {
        match kind {
            's' | 'o' => parsed.texts.push(read.text()?),
            'u' => drop(read.number()?),
            'v' if read.signature()? == "s" => parsed.texts.push(read.text()?),
            // What comes behind is nothing of ours.
            _ => break,
        }
    }
    Some(parsed)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        self.string(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        self.string(length)
    }

    fn string(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.byte()? == 0).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method =
        Method { destination: "a.b", path: "/x", interface: "a.b.I", member: "M" };

    #[test]
    fn a_call_is_as_the_specification_s_table_has_it() {
        let properties = [("P", Value::Flag(true)), ("Q", Value::Numbers(vec![7]))];
        let arguments = [Argument::Text("u"), Argument::Properties(&properties), Argument::NoUnits];
        let message = call(3, METHOD, &arguments);
        let fixed: [u8; FIXED] = message[..FIXED].try_into().unwrap();
        assert_eq!(rest(&fixed), Some(message.len() - FIXED));
        assert_eq!((&message[..4], &message[8..12]), (&[b'l', 1, 0, 1][..], &[3, 0, 0, 0][..]));
        #[rustfmt::skip]
        let body = [
            1, 0, 0, 0, b'u', 0, 0, 0,
            36, 0, 0, 0, 0, 0, 0, 0, // the properties' bytes, without the padding before the first
            1, 0, 0, 0, b'P', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0,
            1, 0, 0, 0, b'Q', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0,
            0, 0, 0, 0, // no units; what would be the first one's place needs no padding
        ];
        assert!(message.ends_with(&body), "{message:?}");
    }

    #[test]
    fn answers_are_read_and_what_is_malformed_is_not() {
        // A signal is built as a call is, but for its kind.
        let mut message = call(9, METHOD, &[Argument::Text("job"), Argument::Text("done")]);
        message[1] = SIGNAL;
        let parsed = parse(&message).unwrap();
        assert_eq!((parsed.kind, parsed.member.as_str()), (SIGNAL, "M"));
        assert_eq!(parsed.texts, ["job", "done"]);
        for end in FIXED..message.len() {
            // Never a panic; a body that is cut short is none.
            assert_eq!(parse(&message[..end]), None, "{end}");
        }
        let mut huge: [u8; FIXED] = message[..FIXED].try_into().unwrap();
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(rest(&huge), None);
        huge[0] = b'B';
        assert_eq!(rest(&huge), None);
    }
}
