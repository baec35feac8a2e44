//! Files of variables: `.env`, and those of `env_file`.
//!
//! As the Compose Specification's "syntax of .env files" has it: `NAME=VALUE`, `export` before it, `#` comments,
//! single quotes for what is taken as it is, double quotes with `\n` and the like, and variables in all but the
//! first. A name alone has the value that the environment has for it.

use std::fs;
use std::path::Path;

use super::interpolate::{Variables, expand};
use crate::error::ComposeError;

/// Names and values, in a file's order; none of a name that has no value.
pub type Assignments = Vec<(String, Option<String>)>;

/// What a file says, in its order.
///
/// # Errors
/// It cannot be read, or a line is none.
pub fn read(path: &Path, known: &Variables) -> Result<Assignments, ComposeError> {
    let text = fs::read_to_string(path).map_err(ComposeError::read(path))?;
    parse(&text, known).map_err(|(line, why)| ComposeError::Variables {
        file: path.to_owned(),
        line,
        why,
    })
}

/// Names and values; with what is wrong, its line.
fn parse(text: &str, known: &Variables) -> Result<Assignments, (usize, String)> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    // What is further up can be used further down; what is known otherwise wins.
    let mut visible = known.clone();
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let at = |why: String| (number + 1, why);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some((name, value)) = line.split_once('=') else {
            let name = name(line).map_err(at)?;
            found.push((name.clone(), known.get(&name).cloned()));
            continue;
        };
        let name = name_of(name).map_err(at)?;
        let mut value = value.trim_start().to_owned();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        if let Some(quote) = quote {
            // A quoted value may go on over lines.
            while end_of(&value, quote).is_none() {
                let (_, next) =
                    lines.next().ok_or_else(|| at(format!("the quote {quote} has no end")))?;
                value = format!("{value}\n{next}");
            }
        }
        let value = match (quote, quote.and_then(|quote| end_of(&value, quote))) {
            (Some('\''), Some(end)) => value[1..end].to_owned(),
            (Some(_), Some(end)) => expand(&unescape(&value[1..end]), &visible).map_err(at)?,
            _ => expand(without_comment(&value), &visible).map_err(at)?,
        };
        if !known.contains_key(&name) {
            visible.insert(name.clone(), value.clone());
        }
        found.push((name, Some(value)));
    }
    Ok(found)
}

fn name_of(text: &str) -> Result<String, String> {
    name(text.trim_end())
}

fn name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{}` is no variable's name", text.escape_debug())),
    }
}

/// Where the quote that the value begins with ends.
fn end_of(value: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    value.char_indices().skip(1).find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped && quote == '"';
        ends.then_some(at)
    })
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some('t') => plain.push('\t'),
                // For the interpolation behind this.
                Some('$') => plain.push_str("$$"),
                Some(other @ ('"' | '\\')) => plain.push(other),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            (other, false) => plain.push(other),
        }
    }
    plain
}

fn without_comment(value: &str) -> &str {
    let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
    let value = if value.starts_with('#') { "" } else { &value[..end] };
    value.trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_variables_are_those_of_the_specification() {
        let known = Variables::from([("HOME".to_owned(), "/root".to_owned())]);
        for (text, expected) in [
            ("A=b", Some("b")),
            ("A = b c ", Some("b c")),
            ("export A=b", Some("b")),
            ("A=", Some("")),
            ("A=b # c", Some("b")),
            ("A=b#c", Some("b#c")),
            ("A=#c", Some("")),
            ("A='b # $c'", Some("b # $c")),
            ("A='b' # c", Some("b")),
            ("A=\"b # c\"", Some("b # c")),
            ("A=\"b\\nc\\\"\"", Some("b\nc\"")),
            ("A=\"b\nc\"", Some("b\nc")),
            ("A=$HOME/x", Some("/root/x")),
            ("A=\"${NO:-b}\"", Some("b")),
            ("A=\\$b", Some("\\")),
            ("A=\"\\$b\"", Some("$b")),
            ("B=1\nA=$B", Some("1")),
            ("\u{feff}# first\n\nA=b", Some("b")),
        ] {
            let found = parse(text, &known).unwrap();
            assert_eq!(found.last().unwrap().1.as_deref(), expected, "{text}");
        }
        assert_eq!(parse("HOME", &known).unwrap()[0].1.as_deref(), Some("/root"));
        assert_eq!(parse("NO", &known).unwrap(), [("NO".to_owned(), None)]);
        for (bad, line) in [("A=b\n=c", 2), ("a b", 1), ("A='b", 1), ("A=${", 1), ("x\nA=${B?}", 2)]
        {
            assert_eq!(parse(bad, &known).unwrap_err().0, line, "{bad}");
        }
    }
}
