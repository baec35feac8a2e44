//! What a workload has written, in podman's format k8s-file: a line of a file for each of the
//! workload's, `TIME STREAM TAG TEXT`. TAG is F for a whole line and P for a part of one, which the next
//! of that stream goes on.
//!
//! ```text
//! log      what is written now
//! log.1    what was before, and so on: LogOptions::max_file of them in all
//! ```

mod entry;
mod follow;
mod reader;
mod writer;

pub use entry::{LogEntry, Stream};
pub use reader::{LogQuery, read};

pub(crate) use writer::LogWriter;

use std::path::{Path, PathBuf};

/// The file that is written; older ones have a number behind it.
const NAME: &str = "log";

/// Where an instance's log is.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// The `number`th file before the one that is written, which is the 0th.
fn numbered(folder: &Path, number: u32) -> PathBuf {
    match number {
        0 => path(folder),
        number => folder.join(format!("{NAME}.{number}")),
    }
}
