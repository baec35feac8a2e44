//! A file's content as a tree, each part of which knows where it was written.

use crate::error::ComposeError;
use crate::place::Place;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it begins.
    pub place: Place,
    /// How it is merged with what an earlier file says.
    pub merge: Merge,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: a key without a value, `null`, `~`.
    Null,
    /// A word or number, as it was written.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Names and values, in the order in which they were written.
    Mapping(Vec<(Key, Node)>),
}

/// A word or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// As it was written, without quotes.
    pub text: String,
    /// Whether it was written without quotes, so that YAML may take it for something else than text.
    pub plain: bool,
}

/// A name in a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name.
    pub text: String,
    /// Where it was written.
    pub place: Place,
}

/// The tags that say how a value is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// By the rules of the specification.
    #[default]
    Usual,
    /// `!reset`: what earlier files say is gone, and so is this.
    Reset,
    /// `!override`: this is in the place of what earlier files say.
    Override,
}

impl Node {
    /// A text.
    pub fn text(text: impl Into<String>, place: &Place) -> Self {
        Self::new(Value::Scalar(Scalar { text: text.into(), plain: false }), place)
    }

    /// A value.
    pub fn new(value: Value, place: &Place) -> Self {
        Self { value, place: place.clone(), merge: Merge::Usual }
    }

    /// What a user calls this kind of value.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a word",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The value of a name, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => {
                entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// The names and values of a mapping; none of nothing.
    ///
    /// # Errors
    /// It is something else; `what` says what it should be.
    pub fn into_entries(self, what: &str) -> Result<Vec<(Key, Node)>, ComposeError> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Mapping(entries) => Ok(entries),
            _ => Err(self.unexpected(what, "a mapping")),
        }
    }

    /// The values of a list; none of nothing.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_items(self, what: &str) -> Result<Vec<Node>, ComposeError> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Sequence(items) => Ok(items),
            _ => Err(self.unexpected(what, "a list")),
        }
    }

    /// A word or number.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_text(self, what: &str) -> Result<String, ComposeError> {
        match self.value {
            Value::Scalar(scalar) => Ok(scalar.text),
            _ => Err(self.unexpected(what, "a word")),
        }
    }

    /// That it is not what is expected.
    pub fn unexpected(&self, what: &str, expected: &str) -> ComposeError {
        ComposeError::invalid(
            &self.place,
            format!("{what}: expected {expected}, found {}", self.kind()),
        )
    }
}
