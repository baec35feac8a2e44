//! Lines of a Dockerfile: parser directives, comments, continuations.

use super::here::Beginning;
use super::{ParseError, wrong};

/// What is left of a Dockerfile.
pub(super) struct Lines<'a> {
    lines: std::str::Lines<'a>,
    /// Of the line that was taken last, from 1.
    pub(super) number: usize,
    pub(super) escape: char,
}

impl<'a> Lines<'a> {
    /// Behind the parser directives, which must be the first lines.
    pub(super) fn new(text: &'a str) -> Result<Self, ParseError> {
        let text = text.trim_start_matches('\u{feff}');
        let mut escape = '\\';
        for (number, line) in text.lines().enumerate() {
            let Some((name, value)) = directive(line) else { break };
            if name.eq_ignore_ascii_case("escape") {
                escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(wrong(number + 1, "the escape character is \\ or `")),
                };
            }
        }
        // Directives are comments in all else.
        Ok(Self { escape, ..Self::plain(text) })
    }

    /// Lines of a text that has no parser directives.
    pub(super) fn plain(text: &'a str) -> Self {
        Self { lines: text.lines(), number: 0, escape: '\\' }
    }

    fn next(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number += 1;
        Some(line)
    }

    /// The next line that is neither empty nor a comment, with those that continue it, and where
    /// it began. Among those, empty lines and comments count for nothing.
    pub(super) fn next_logical(&mut self) -> Option<(usize, String)> {
        let first = loop {
            let line = self.next()?.trim_start();
            if !line.is_empty() && !line.starts_with('#') {
                break line;
            }
        };
        let start = self.number;
        let (mut joined, mut continues) = self.continued(first);
        while continues {
            let Some(line) = self.next() else { break };
            let trimmed = line.trim_start();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let (line, goes_on) = self.continued(line);
            joined += &line;
            continues = goes_on;
        }
        match joined.trim().is_empty() {
            // A lone escape character, and nothing that it continues.
            true => self.next_logical(),
            false => Some((start, joined)),
        }
    }

    /// The line without the escape character at its end, and whether there is one. Doubled, it
    /// stands for itself.
    fn continued(&self, line: &str) -> (String, bool) {
        let end = line.trim_end_matches([' ', '\t']);
        match end.strip_suffix(self.escape) {
            Some(start) if !start.ends_with(self.escape) => (start.to_owned(), true),
            _ => (line.to_owned(), false),
        }
    }

    /// The lines up to the end of a here-document, which is taken too. None without an end.
    pub(super) fn document(&mut self, beginning: &Beginning) -> Option<String> {
        let mut content = String::new();
        loop {
            let line = self.next()?;
            let end = if beginning.strips_tabs { line.trim_start_matches('\t') } else { line };
            if end == beginning.name {
                return Some(content);
            }
            content += line;
            content.push('\n');
        }
    }
}

/// `# NAME=VALUE`.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_name.then_some((name, value.trim()))
}
