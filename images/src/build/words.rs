//! Words of a Dockerfile: quotes, escapes and variables (Dockerfile reference, "Environment
//! replacement").

use std::iter::Peekable;
use std::str::Chars;

/// Splits at white space that is neither quoted nor escaped. Quotes and escapes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (c, _) if c == escape && quote != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
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

    /// Behind a `$`.
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

    /// `${NAME}`, and `-`, `+`, `?`, with `:` also where the value is empty.
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
        let word = self.until(Some('}'))?;
        self.depth -= 1;
        match operator {
            '-' if is_set => Ok(value.unwrap_or_default()),
            '-' => Ok(word),
            '+' if is_set => Ok(word),
            '+' => Ok(String::new()),
            '?' if is_set => Ok(value.unwrap_or_default()),
            '?' => Err(format!("{name} is not set: {word}")),
            other => Err(format!("`${{{name}{other}` is not known; there are `-`, `+` and `?`")),
        }
    }
}

/// Joins continued lines, and leaves out comments between them, as Docker does before a shell
/// sees the text.
pub(super) fn join_lines(text: &str, escape: char) -> String {
    let mut joined = String::new();
    let mut continues = false;
    for (number, line) in text.lines().enumerate() {
        if number > 0 && continues && line.trim_start().starts_with('#') {
            continue;
        }
        if number > 0 && !continues {
            joined.push('\n');
        }
        match line.trim_end().strip_suffix(escape) {
            Some(start) => {
                joined += start;
                continues = true;
            }
            None => {
                joined += line;
                continues = false;
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(word: &str) -> Result<String, String> {
        expand(word, '\\', &|name| match name {
            "A" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn words_are_split_outside_quotes() {
        assert_eq!(
            split(r#"a=1  b="two words" c='x y'  d=e\ f"#, '\\'),
            ["a=1", r#"b="two words""#, "c='x y'", r"d=e\ f"]
        );
        assert_eq!(split("  ", '\\'), [""; 0]);
    }

    #[test]
    fn variables_are_replaced_as_docker_does() {
        for (word, value) in [
            ("plain", "plain"),
            ("$A/$A", "value/value"),
            ("${A}s", "values"),
            ("$Ab", ""),
            ("${NONE:-other}", "other"),
            ("${EMPTY:-other}", "other"),
            ("${EMPTY-other}", ""),
            ("${A:+set}", "set"),
            ("${NONE+set}", ""),
            ("${NONE:-${A}/x}", "value/x"),
            (r"\$A", "$A"),
            ("'$A'", "$A"),
            (r#""$A \" \n""#, r#"value " \n"#),
            ("cost: 5$", "cost: 5$"),
            (r"a\ b", "a b"),
        ] {
            assert_eq!(expanded(word).as_deref(), Ok(value), "{word}");
        }
    }

    #[test]
    fn what_is_not_closed_or_not_known_is_an_error() {
        for word in ["'open", "\"open", "${A", "${A:-x", "${}", "${A%x}", "${NONE:?needed}"] {
            assert!(expanded(word).is_err(), "{word}");
        }
        let deep = "${NONE:-".repeat(1000);
        assert!(expanded(&deep).is_err());
    }

    #[test]
    fn continued_lines_become_one() {
        let text = "apt-get update \\\n  # why\n  && apt-get install x \\\n\n  && true";
        assert_eq!(
            join_lines("a \\\n# comment\n  && b", '\\'),
            "a   && b",
            "a comment between continued lines"
        );
        assert!(join_lines(text, '\\').starts_with("apt-get update   && apt-get install x "));
    }
}
