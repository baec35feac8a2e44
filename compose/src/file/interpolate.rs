//! Variables in values: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?error}`, `${NAME:+instead}` and the same
//! without the colon, within each other; `$$` is a dollar.
//! See <https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md>.

use std::collections::BTreeMap;

use super::node::{Node, Scalar, Value};
use crate::error::ComposeError;

/// Values of variables, by their names.
pub type Variables = BTreeMap<String, String>;

/// How deep defaults may be within each other.
const MOST_LEVELS: usize = 32;

/// Puts the variables' values into all values of a tree; names stay as they are.
///
/// # Errors
/// One has no value and must have one, or it is written wrongly.
pub fn interpolate(node: &mut Node, variables: &Variables) -> Result<(), ComposeError> {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(Scalar { text, .. }) if text.contains('$') => {
            *text =
                expand(text, variables).map_err(|why| ComposeError::invalid(&node.place, why))?;
        }
        Value::Scalar(_) => {}
        Value::Sequence(items) => {
            items.iter_mut().try_for_each(|item| interpolate(item, variables))?;
        }
        Value::Mapping(entries) => {
            entries.iter_mut().try_for_each(|(_, node)| interpolate(node, variables))?;
        }
    }
    Ok(())
}

/// A text with the variables' values in it.
///
/// # Errors
/// As [`interpolate`], without a place.
pub fn expand(text: &str, variables: &Variables) -> Result<String, String> {
    let mut reader = Reader { rest: text, whole: text, variables };
    let expanded = reader.text(None, 0)?;
    Ok(expanded)
}

struct Reader<'a> {
    rest: &'a str,
    whole: &'a str,
    variables: &'a Variables,
}

impl Reader<'_> {
    fn wrong(&self) -> String {
        format!(
            "`{}` is no interpolation: expected $NAME, ${{NAME}}, ${{NAME:-default}} and the like; $$ is a dollar",
            self.whole.escape_debug()
        )
    }

    fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    /// Up to `end`, which is taken as well.
    fn text(&mut self, end: Option<char>, depth: usize) -> Result<String, String> {
        if depth > MOST_LEVELS {
            return Err(self.wrong());
        }
        let mut text = String::new();
        loop {
            match self.take() {
                None if end.is_none() => return Ok(text),
                None => return Err(self.wrong()),
                next if next == end => return Ok(text),
                Some('$') => text.push_str(&self.variable(depth)?),
                Some(other) => text.push(other),
            }
        }
    }

    fn name(&mut self) -> String {
        let is_part = |(at, c): (usize, char)| {
            c == '_' || c.is_ascii_alphabetic() || at > 0 && c.is_ascii_digit()
        };
        let end = self.rest.char_indices().find(|it| !is_part(*it)).map(|(at, _)| at);
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name.to_owned()
    }

    /// What is behind a dollar.
    fn variable(&mut self, depth: usize) -> Result<String, String> {
        if let Some(rest) = self.rest.strip_prefix('$') {
            self.rest = rest;
            return Ok("$".to_owned());
        }
        let value = |reader: &Self, name: &str| reader.variables.get(name).cloned();
        let Some(rest) = self.rest.strip_prefix('{') else {
            let name = self.name();
            return match name.is_empty() {
                true => Err(self.wrong()),
                false => Ok(value(self, &name).unwrap_or_default()),
            };
        };
        self.rest = rest;
        let name = self.name();
        let mut operator = self.take().ok_or_else(|| self.wrong())?;
        // With a colon, an empty value is none.
        let colon = operator == ':';
        if colon {
            operator = self.take().ok_or_else(|| self.wrong())?;
        }
        if name.is_empty() {
            return Err(self.wrong());
        }
        let value = value(self, &name).filter(|value| !colon || !value.is_empty());
        if operator == '}' && !colon {
            return Ok(value.unwrap_or_default());
        }
        // Read in any case: what is wrong is wrong also where it is not needed.
        let before = self.rest;
        let other = match self.text(Some('}'), depth + 1) {
            Ok(other) => other,
            // An error within what is not needed, such as a variable that must be there, is none.
            Err(_) if value.is_some() && self.skip(before) => String::new(),
            Err(why) => return Err(why),
        };
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(other)),
            ('+', value) => Ok(value.map_or_else(String::new, |_| other)),
            ('?', Some(value)) => Ok(value),
            ('?', None) if other.is_empty() => Err(format!("the variable {name} has no value")),
            ('?', None) => Err(format!("the variable {name} has no value: {other}")),
            _ => Err(self.wrong()),
        }
    }

    /// Goes behind the brace that ends what begins at `from`. False where there is none.
    fn skip(&mut self, from: &str) -> bool {
        let mut open = 1;
        for (at, c) in from.char_indices() {
            match c {
                '{' if from[..at].ends_with('$') => open += 1,
                '}' => open -= 1,
                _ => {}
            }
            if open == 0 {
                let behind = self.whole.len() - from.len() + at + 1;
                // `from` is an end of the whole, so that this is one too.
                self.rest = self.whole.get(behind..).unwrap_or_default();
                return true;
            }
        }
        false
    }
}
