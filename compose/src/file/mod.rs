//! Compose files as trees: read, interpolated, merged, with what they include and extend.
//!
//! Nothing here knows what a service is made of, but for the rules of merging; [`crate::model`] does.

mod extends;
mod include;
pub mod interpolate;
pub mod merge;
pub mod node;
pub mod variables;
mod yaml;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::interpolate::Variables;
use self::node::{Node, Value};
use crate::error::ComposeError;
use crate::place::{Place, Source};

/// More is no compose file, in bytes.
const MOST_BYTES: u64 = 4 << 20;

/// Files as one tree, nothing of which is to be looked up in other files any more.
///
/// `folder` is where their relative paths start from. `-` is standard input.
///
/// # Errors
/// One cannot be read, is no YAML, or contradicts another.
pub fn load(files: &[PathBuf], folder: &Path, variables: &Variables) -> Result<Node, ComposeError> {
    load_within(files, folder, variables, &mut Vec::new())
}

/// `outer` are the files that include these.
fn load_within(
    files: &[PathBuf],
    folder: &Path,
    variables: &Variables,
    outer: &mut Vec<PathBuf>,
) -> Result<Node, ComposeError> {
    let mut merged: Option<Node> = None;
    for file in files {
        for document in documents(file, folder, variables)? {
            let document = extends::resolve(document, variables)?;
            merged = Some(match merged {
                None => merge::without_reset(document),
                Some(earlier) => merge::merge(earlier, document)?,
            });
        }
    }
    let source = Source { file: files.first().cloned().unwrap_or_default(), folder: folder.into() };
    let place = Place { source: Arc::new(source), line: 1 };
    let tree = merged.ok_or_else(|| ComposeError::invalid(&place, "the file is empty"))?;
    include::resolve(tree, variables, outer)
}

/// The documents of a file, with the variables' values.
fn documents(file: &Path, folder: &Path, variables: &Variables) -> Result<Vec<Node>, ComposeError> {
    let source = Arc::new(Source { file: file.to_owned(), folder: folder.to_owned() });
    let mut documents = yaml::parse(&content(file)?, &source)?;
    for document in &mut documents {
        if !matches!(document.value, Value::Mapping(_)) {
            return Err(document.unexpected("a compose file", "a mapping"));
        }
        interpolate::interpolate(document, variables)?;
    }
    Ok(documents)
}

fn content(file: &Path) -> Result<String, ComposeError> {
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => io::stdin().lock().take(MOST_BYTES + 1).read_to_string(&mut text),
        false => fs::File::open(file)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text)),
    };
    let too_large = || io::Error::other(format!("more than {MOST_BYTES} bytes"));
    let read = read.and_then(|read| match read as u64 > MOST_BYTES {
        true => Err(too_large()),
        false => Ok(()),
    });
    read.map_err(ComposeError::read(file))?;
    Ok(text)
}
