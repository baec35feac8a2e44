//! Taking a mapping apart: each name is taken once, and what is left is refused with its line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use crate::error::ComposeError;
use crate::file::merge::as_mapping;
use crate::file::node::{Key, Node, Scalar, Value};
use crate::place::Place;

/// The names and values of a mapping that have not been taken yet.
pub struct Fields {
    /// What it is that has them, for people: `service web`.
    what: String,
    /// Where it begins.
    pub place: Place,
    entries: Vec<(Key, Node)>,
}

impl Fields {
    /// Those of a mapping; none of nothing.
    ///
    /// # Errors
    /// It is no mapping.
    pub fn of(node: Node, what: impl Into<String>) -> Result<Self, ComposeError> {
        let (what, place) = (what.into(), node.place.clone());
        let entries = node.into_entries(&what)?;
        Ok(Self { what, place, entries })
    }

    /// The value of a name; none where there is none, or nothing.
    pub fn take(&mut self, name: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(key, _)| key.text == name)?;
        let (_, node) = self.entries.swap_remove(at);
        Some(node).filter(|node| node.value != Value::Null)
    }

    /// `what.name`
    pub fn name(&self, name: &str) -> String {
        format!("{}: {name}", self.what)
    }

    /// A word.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ComposeError> {
        let what = self.name(name);
        self.take(name).map(|node| node.into_text(&what)).transpose()
    }

    /// A word that is read.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read<T, E: Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ComposeError> {
        let what = self.name(name);
        self.take(name).map(|node| read_text(node, &what, read)).transpose()
    }

    /// A word that says what it is.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn parse<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, ComposeError> {
        self.read(name, str::parse)
    }

    /// Yes or no.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, ComposeError> {
        self.read(name, |text| match text.to_ascii_lowercase().as_str() {
            // Those of YAML 1.1, too, which old files are.
            "true" | "yes" | "on" | "y" | "1" => Ok(true),
            "false" | "no" | "off" | "n" | "0" => Ok(false),
            _ => Err(format!("`{}`: expected true or false", text.escape_debug())),
        })
    }

    /// A list of words; one word is a list as well where `name` may be written so.
    ///
    /// # Errors
    /// It is something else.
    pub fn words(&mut self, name: &str) -> Result<Vec<(String, Place)>, ComposeError> {
        let what = self.name(name);
        let Some(node) = self.take(name) else { return Ok(Vec::new()) };
        let items = as_mapping(node, name)?.into_items(&what)?;
        let word = |item: Node| {
            let place = item.place.clone();
            item.into_text(&what).map(|text| (text, place))
        };
        items.into_iter().map(word).collect()
    }

    /// A list of words that are read.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn list<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Vec<T>, ComposeError> {
        let what = self.name(name);
        let read = |(text, place): (String, Place)| {
            text.parse::<T>().map_err(|why| ComposeError::invalid(&place, format!("{what}: {why}")))
        };
        self.words(name)?.into_iter().map(read).collect()
    }

    /// `NAME: VALUE`, or a list of `NAME=VALUE`; none is a name without a value.
    ///
    /// # Errors
    /// It is something else, or a value is one that YAML takes for no text.
    pub fn assignments(
        &mut self,
        name: &str,
    ) -> Result<BTreeMap<String, Option<String>>, ComposeError> {
        let what = self.name(name);
        let Some(node) = self.take(name) else { return Ok(BTreeMap::new()) };
        let mut all = BTreeMap::new();
        for (key, node) in as_mapping(node, name)?.into_entries(&what)? {
            let value = match node.value {
                Value::Null => None,
                Value::Scalar(Scalar { text, plain: true }) if is_boolean(&text) => {
                    let why = format!("{what}.{}: `{text}` is no text; write \"{text}\"", key.text);
                    return Err(ComposeError::invalid(&node.place, why));
                }
                _ => Some(node.into_text(&what)?),
            };
            all.insert(key.text, value);
        }
        Ok(all)
    }

    /// Refuses what is left: `refused` says why of what the specification has; extensions (`x-`) are left alone.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(self, refused: &[(&str, &str)]) -> Result<(), ComposeError> {
        for (key, node) in &self.entries {
            let name = key.text.as_str();
            // Nothing asks for nothing.
            if name.starts_with("x-") || node.value == Value::Null {
                continue;
            }
            let what = self.name(name);
            return Err(match refused.iter().find(|(refused, _)| *refused == name) {
                Some((_, why)) => ComposeError::unsupported(&key.place, what, *why),
                None => ComposeError::invalid(&key.place, format!("{what} is unknown")),
            });
        }
        Ok(())
    }
}

/// A word that is read.
///
/// # Errors
/// It cannot be read.
pub fn read_text<T, E: Display>(
    node: Node,
    what: &str,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, ComposeError> {
    let place = node.place.clone();
    let text = node.into_text(what)?;
    read(&text).map_err(|why| ComposeError::invalid(&place, format!("{what}: {why}")))
}

fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "false" | "True" | "False" | "TRUE" | "FALSE")
}

/// What is said of something: a name alone has an empty value.
pub(super) fn valued(labels: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    labels.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()
}
