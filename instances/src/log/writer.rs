//! Writing a log, with files of a limited size.
//!
//! Whatever becomes of the files, the workload goes on: what cannot be written is lost, and told where our
//! own errors go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::entry::{LogEntry, Stream};
use super::numbered;
use crate::config::LogOptions;
use crate::time::Timestamp;

/// The longest line that is kept in one piece, in bytes.
const MAX_LINE: usize = 16 << 10;

pub(crate) struct LogWriter {
    folder: PathBuf,
    options: LogOptions,
    file: Option<File>,
    /// Of the file, in bytes.
    size: u64,
    /// What could not be written since it was last told, in bytes.
    lost: u64,
}

impl LogWriter {
    pub(crate) fn new(folder: &Path, options: LogOptions) -> Self {
        Self { folder: folder.to_owned(), options, file: None, size: 0, lost: 0 }
    }

    /// Writes what was read of a stream at once: lines, the last of which may go on later.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8]) {
        let time = Timestamp::now();
        let mut entries = Vec::with_capacity(data.len() + 64);
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            let (line, ends) = match line.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (line, false),
            };
            let mut pieces = line.chunks(MAX_LINE).peekable();
            loop {
                let piece = pieces.next().unwrap_or_default();
                let is_last = pieces.peek().is_none();
                let entry = LogEntry::encode(time, stream, piece, ends && is_last);
                if (entries.len() + entry.len()) as u64 > self.options.max_size {
                    self.append(&entries);
                    entries.clear();
                }
                entries.extend(entry);
                if is_last {
                    break;
                }
            }
        }
        self.append(&entries);
    }

    fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        match self.try_append(entries) {
            Ok(()) if self.lost > 0 => {
                eprintln!("log: {} bytes could not be written before", self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    eprintln!("log: cannot write: {error}");
                }
                self.lost += entries.len() as u64;
            }
        }
    }

    fn try_append(&mut self, entries: &[u8]) -> io::Result<()> {
        // Somebody may have removed it.
        let is_there = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        if !self.file.as_ref().is_some_and(is_there) {
            self.open()?;
        }
        if self.size > 0 && self.size + entries.len() as u64 > self.options.max_size {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Err(error) = file.write_all(entries) {
            // Half an entry would spoil the next one.
            file.set_len(self.size)?;
            return Err(error);
        }
        self.size += entries.len() as u64;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(numbered(&self.folder, 0))?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let last = self.options.max_file.max(1) - 1;
        if last == 0 {
            fs::remove_file(numbered(&self.folder, 0))?;
        }
        for number in (0..last).rev() {
            match fs::rename(numbered(&self.folder, number), numbered(&self.folder, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<LogEntry> {
        let text = fs::read(path).unwrap_or_default();
        text.split(|byte| *byte == b'\n').filter_map(LogEntry::parse).collect()
    }

    #[test]
    fn lines_are_told_apart_from_parts_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path(), LogOptions::default());
        log.write(Stream::Stdout, b"one\n\ntw");
        log.write(Stream::Stdout, b"o\n");
        log.write(Stream::Stderr, &[b'x'; MAX_LINE + 1]);
        let seen: Vec<_> = lines(&dir.path().join("log"))
            .into_iter()
            .map(|entry| (entry.text.len(), entry.is_whole))
            .collect();
        assert_eq!(
            seen,
            [(3, true), (0, true), (2, false), (1, true), (MAX_LINE, false), (1, false)]
        );
    }

    #[test]
    fn a_flood_fills_so_many_files_and_no_more() {
        for max_file in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = LogWriter::new(dir.path(), LogOptions { max_size: 1000, max_file });
            for number in 0..1000 {
                log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
            }
            let files = fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(files as u32, max_file);
            let mut seen = Vec::new();
            for number in (0..max_file).rev() {
                let path = numbered(dir.path(), number);
                assert!(path.metadata().unwrap().len() <= 1000);
                seen.extend(lines(&path).into_iter().map(|entry| entry.text));
            }
            let first = 1000 - seen.len();
            let expected: Vec<_> =
                (first..1000).map(|number| format!("line {number}").into_bytes()).collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_file_that_was_removed_or_cannot_be_written_holds_up_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path(), LogOptions::default());
        log.write(Stream::Stdout, b"lost\n");
        fs::remove_file(dir.path().join("log")).unwrap();
        log.write(Stream::Stdout, b"kept\n");
        assert_eq!(lines(&dir.path().join("log"))[0].text, b"kept");
        // Always full.
        log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.write(Stream::Stdout, b"lost\n");
        assert!(log.lost > 0);
        log.file = None;
        log.write(Stream::Stdout, b"again\n");
        assert_eq!(log.lost, 0);
        assert_eq!(lines(&dir.path().join("log"))[1].text, b"again");
    }
}
