//! Where something was written.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, and the folder that relative paths in it start from.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The folder: of the project's files the project's, of others their own.
    pub folder: PathBuf,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub source: Arc<Source>,
    /// The line, from 1 on.
    pub line: usize,
}

impl Place {
    /// A path that was written there.
    pub fn path(&self, path: &str) -> PathBuf {
        let home = std::env::home_dir();
        match (path.strip_prefix('~'), home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                home.join(rest.trim_start_matches('/'))
            }
            _ => clean(&self.source.folder.join(path)),
        }
    }
}

/// Without `.`, which only hides that two paths are one. `..` stays: what it leads to is the kernel's to say.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.file.display(), self.line)
    }
}
