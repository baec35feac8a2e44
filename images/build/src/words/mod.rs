//! Words of a Dockerfile: quotes, escapes and variables (Dockerfile reference, "Environment
//! replacement").

mod patterns;
#[cfg(test)]
mod tests;

use std::iter::Peekable;
use std::str::Chars;

use patterns::{Side, replaced, without};

/// Splits at white space that is neither quoted nor escaped. Quotes and escapes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, behind) = first(rest, escape);
        words.push(word.to_owned());
        rest = behind.trim_start();
    }
    words
}

/// The first of the words that [`split`] gives, which `text` begins with, and what follows it.
pub(super) fn first(text: &str, escape: char) -> (&str, &str) {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => return text.split_at(at),
            (c, _) if c == escape && quote != Some('\'') => drop(chars.next()),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    (text, "")
}

/// Takes quotes and escapes away and puts variables' values in. `lookup` gives a variable's
/// value, `None` where it is not set.
pub(super) fn expand(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut expander = Expander { chars: word.chars().peekable(), escape, lookup, depth: 0 };
    expander.until(None)
}

struct Expander<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    depth: usize,
}

/// `${A:-${B:-…}}` may be nested so deep.
const MAX_DEPTH: usize = 32;

impl Expander<'_> {
    /// Up to `end`, which is taken too, or to the end of the word.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            if Some(c) == end {
                return Ok(text);
            }
            match c {
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => text += &self.variable()?,
                c if c == self.escape => text.extend(self.chars.next()),
                c => text.push(c),
            }
        }
        match end {
            None => Ok(text),
            Some(end) => Err(format!("a `{end}` is missing")),
        }
    }

    /// A pattern up to one of `ends`, which is told; what is quoted in it is quoted by `\`.
    fn pattern(&mut self, ends: &[char]) -> Result<(String, char), String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            let mut part = String::new();
            match c {
                c if ends.contains(&c) => return Ok((text, c)),
                '\'' => self.single_quoted(&mut part)?,
                '"' => self.double_quoted(&mut part)?,
                '$' => text += &self.variable()?,
                c if c == self.escape => part.extend(self.chars.next()),
                c => text.push(c),
            }
            text.extend(part.chars().flat_map(|c| ['\\', c]));
        }
        Err("a `}` is missing".to_owned())
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), String> {
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            text.push(c);
        }
        Err("a single quote is not closed".to_owned())
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), String> {
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return Ok(()),
                '$' => *text += &self.variable()?,
                c if c == self.escape => match self.chars.next() {
                    Some(c @ ('"' | '$')) => text.push(c),
                    Some(c) if c == self.escape => text.push(c),
                    Some(other) => text.extend([c, other]),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err("a double quote is not closed".to_owned())
    }

    /// Expands a variable, of which the `$` has been read.
    fn variable(&mut self) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        match name.is_empty() {
            true => Ok("$".to_owned()),
            false => Ok((self.lookup)(&name).unwrap_or_default()),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    /// `${NAME}`; `-`, `+`, `?`, with `:` also where the value is empty; `#`, `##`, `%`, `%%` take
    /// from the value what matches, `/` and `//` replace it.
    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("`${` without a name".to_owned());
        }
        let value = (self.lookup)(&name);
        let counts_empty = self.chars.next_if_eq(&':').is_some();
        let is_set = value.as_ref().is_some_and(|value| !(counts_empty && value.is_empty()));
        let operator = self.chars.next().ok_or_else(|| format!("`${{{name}` is not closed"))?;
        if operator == '}' && !counts_empty {
            return Ok(value.unwrap_or_default());
        }
        if self.depth == MAX_DEPTH {
            return Err("variables are nested too deep".to_owned());
        }
        self.depth += 1;
        let result = match operator {
            '#' | '%' | '/' if !counts_empty => self.matched(operator, &value.unwrap_or_default()),
            '-' | '+' | '?' => self.alternative(operator, &name, value.filter(|_| is_set)),
            other => Err(format!("`${{{name}{other}` is not known")),
        };
        self.depth -= 1;
        result
    }

    fn alternative(
        &mut self,
        operator: char,
        name: &str,
        value: Option<String>,
    ) -> Result<String, String> {
        let word = self.until(Some('}'))?;
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map_or(String::new(), |_| word)),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(format!("{name} is not set: {word}")),
        }
    }

    fn matched(&mut self, operator: char, value: &str) -> Result<String, String> {
        let is_doubled = self.chars.next_if_eq(&operator).is_some();
        if operator != '/' {
            let (pattern, _) = self.pattern(&['}'])?;
            let side = if operator == '#' { Side::Beginning } else { Side::End };
            return Ok(without(value, &pattern, side, is_doubled));
        }
        let (pattern, end) = self.pattern(&['/', '}'])?;
        let by = if end == '/' { self.until(Some('}'))? } else { String::new() };
        Ok(replaced(value, &pattern, &by, is_doubled))
    }
}
