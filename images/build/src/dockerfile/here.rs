//! Here-documents: `<<END`, `<<-END`, `3<<'END'`.

use crate::words;

/// A document with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HereDocument {
    pub(super) beginning: Beginning,
    /// Its lines as written, with their newlines.
    pub(super) content: String,
}

/// What announces a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// The line that ends it, and the file's name where it is copied into a folder.
    pub(super) name: String,
    /// `<<-`: tabs at the beginnings of lines are not part of it.
    pub(super) strips_tabs: bool,
    /// Not where any of the name is quoted.
    pub(super) expands: bool,
}

impl HereDocument {
    pub(crate) fn name(&self) -> &str {
        &self.beginning.name
    }

    /// Whether variables in it are replaced.
    pub(crate) fn expands(&self) -> bool {
        self.beginning.expands
    }

    /// What the program finds: without leading tabs where the document is `<<-`.
    pub(crate) fn content(&self) -> String {
        if !self.beginning.strips_tabs {
            return self.content.clone();
        }
        let lines = self.content.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }

    /// As it stands behind the line that announces it, with its end.
    pub(crate) fn as_written(&self) -> String {
        format!("{}{}", self.content, self.beginning.name)
    }
}

/// The documents that a line announces.
pub(super) fn beginnings(line: &str) -> Vec<Beginning> {
    // In a shell's text `\` quotes, whatever continues the Dockerfile's lines.
    words::split(line, '\\').iter().filter_map(|word| beginning(word)).collect()
}

/// Whether the word announces a document; as BuildKit tells it from what else a shell knows, such
/// as `<<<word` and `$((1<<2))`.
pub(crate) fn beginning(word: &str) -> Option<Beginning> {
    let operator = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = operator.strip_prefix("<<")?;
    let (rest, strips_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    // `<<END>file` and `<<END|sh`: the shell's word ends there.
    let end = rest.find(['<', '>', '|', '&', ';', '(', ')']).unwrap_or(rest.len());
    let written = &rest[..end];
    let is_word = words::split(written, '\\').len() == 1;
    if !is_word || rest[end..].starts_with('<') {
        return None;
    }
    let name = words::expand(written, '\\', &|name| Some(format!("${name}"))).ok()?;
    let expands = name == written;
    (!name.is_empty()).then_some(Beginning { name, strips_tabs, expands })
}
