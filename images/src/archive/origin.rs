//! Where images are loaded from.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::blob::MAX_DOCUMENT;
use crate::error::{ImageError, io_error};

/// A file, a folder or a stream with images, as the operator named it.
pub(super) enum Origin<'a> {
    Path(&'a Path),
    /// Standard input, or whatever else a caller reads from.
    Stream,
}

impl Origin<'_> {
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Stream => Path::new("standard input"),
        }
    }

    pub(super) fn not_a_layout(&self, why: String) -> ImageError {
        ImageError::NotALayout { path: self.name().to_owned(), why }
    }

    /// Reads an index, manifest or configuration at `path`, which is ours or the layout's.
    pub(super) fn read_document(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let mut text = Vec::new();
        let file = File::open(path).map_err(io_error("open", path))?;
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut text).map_err(io_error("read", path))?;
        match text.len() as u64 > MAX_DOCUMENT {
            true => {
                Err(self.not_a_layout(format!("a document has more than {MAX_DOCUMENT} bytes")))
            }
            false => Ok(text),
        }
    }

    /// One name cannot be given to several images.
    pub(super) fn check_one(&self, count: usize, name: Option<&str>) -> Result<(), ImageError> {
        match name {
            Some(_) if count != 1 => {
                let why = format!("it holds {count} images, so one name is not enough");
                Err(self.not_a_layout(why))
            }
            _ => Ok(()),
        }
    }
}
