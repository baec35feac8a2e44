//! Reading a log, while it is written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::entry::LogEntry;
use super::follow::Watch;
use super::numbered;
use crate::error::InstanceError;
use crate::time::Timestamp;

/// What of a log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogQuery {
    /// Not what is older.
    pub since: Option<Timestamp>,
    /// Not what is newer.
    pub until: Option<Timestamp>,
    /// The last lines only, so many of them.
    pub tail: Option<usize>,
    /// Whether to go on with what is written from now on.
    pub follow: bool,
}

/// Gives the lines of the instance's log to `take`, the oldest first, until it says that it has enough
/// (false). With [`LogQuery::follow`] it goes on until `has_ended`, which is asked now and then, says
/// that nothing more will come.
///
/// # Errors
/// The files cannot be read.
pub fn read(
    folder: &Path,
    query: &LogQuery,
    mut take: impl FnMut(&LogEntry) -> bool,
    has_ended: impl Fn() -> bool,
) -> Result<(), InstanceError> {
    let failed =
        |source| InstanceError::Io { action: "read the log in", path: folder.to_owned(), source };
    // Before anything is read, so that nothing is missed that is written meanwhile.
    let watch = query.follow.then(|| Watch::new(folder)).transpose().map_err(failed)?;
    let mut log = Log::open(folder).map_err(failed)?;
    let is_wanted = |entry: &LogEntry| {
        query.since.is_none_or(|since| entry.time >= since)
            && query.until.is_none_or(|until| entry.time <= until)
    };
    let mut last = VecDeque::new();
    while let Some(entry) = log.next().map_err(failed)? {
        match query.tail {
            _ if !is_wanted(&entry) => {}
            Some(count) => {
                last.push_back(entry);
                // Parts belong to the line that they are of.
                while last.iter().filter(|entry| entry.is_whole).count() > count {
                    last.pop_front();
                }
            }
            None if !take(&entry) => return Ok(()),
            None => {}
        }
    }
    if query.tail == Some(0) {
        last.clear();
    }
    if !last.iter().all(&mut take) {
        return Ok(());
    }
    let Some(watch) = watch else { return Ok(()) };
    loop {
        // In this order: what was written before the end is read after it.
        let ended = has_ended();
        while let Some(entry) = log.next().map_err(failed)? {
            if query.until.is_some_and(|until| entry.time > until)
                || is_wanted(&entry) && !take(&entry)
            {
                return Ok(());
            }
        }
        if ended || query.until.is_some_and(|until| Timestamp::now() > until) {
            return Ok(());
        }
        watch.wait().map_err(failed)?;
    }
}

/// The files as one, from the oldest on.
struct Log<'a> {
    folder: &'a Path,
    older: Vec<File>,
    current: Option<BufReader<File>>,
    /// Begun, and not written to its end yet.
    half: Vec<u8>,
}

impl<'a> Log<'a> {
    fn open(folder: &'a Path) -> io::Result<Self> {
        let mut older = snapshot(folder)?;
        let current = older.pop().map(BufReader::new);
        Ok(Self { folder, older, current, half: Vec::new() })
    }

    fn next(&mut self) -> io::Result<Option<LogEntry>> {
        loop {
            let Some(current) = &mut self.current else {
                // There was none; by now there may be several.
                *self = Self::open(self.folder)?;
                match self.current {
                    Some(_) => continue,
                    None => return Ok(None),
                }
            };
            current.read_until(b'\n', &mut self.half)?;
            if let Some(line) = self.half.strip_suffix(b"\n") {
                let entry = LogEntry::parse(line);
                self.half.clear();
                match entry {
                    Some(entry) => return Ok(Some(entry)),
                    None => continue,
                }
            }
            if let Some(next) = self.older.pop() {
                self.current = Some(BufReader::new(next));
                self.half.clear();
            } else if !self.follow_rotation()? {
                return Ok(None);
            }
        }
    }

    /// At the end of the last file that was open: whether there is a newer one.
    fn follow_rotation(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else { return Ok(false) };
        let read = current.get_ref();
        let mut newer = snapshot(self.folder)?;
        newer.truncate(newer.iter().take_while(|file| !is_same(file, read)).count());
        // What was written to it before the rotation comes first.
        let position = current.stream_position()?;
        if newer.is_empty() || current.get_ref().metadata()?.len() > position {
            return Ok(current.get_ref().metadata()?.len() > position && !newer.is_empty());
        }
        self.half.clear();
        self.current = newer.pop().map(BufReader::new);
        self.older = newer;
        Ok(true)
    }
}

/// The files from the newest to the oldest, of a moment between two rotations.
///
/// A rotation renames them one after the other, the oldest first: meanwhile one is missing among them, and who
/// opens them in turn may find one under two names, or not at all. So what was opened counts when nothing is missing
/// and a second look finds the same.
fn snapshot(folder: &Path) -> io::Result<Vec<File>> {
    loop {
        let files = open_all(folder)?;
        let has_gap = open_numbered(folder, files.len() as u32 + 1)?.is_some();
        let again = open_all(folder)?;
        let is_undisturbed = files.len() == again.len()
            && files.iter().zip(&again).all(|(file, again)| is_same(file, again));
        let is_twice = |pair: &[File]| is_same(&pair[0], &pair[1]);
        if is_undisturbed && !has_gap && !files.windows(2).any(is_twice) {
            return Ok(files);
        }
    }
}

/// The files from the newest on, as far as there is one after the other.
fn open_all(folder: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    while let Some(file) = open_numbered(folder, files.len() as u32)? {
        files.push(file);
    }
    Ok(files)
}

fn open_numbered(folder: &Path, number: u32) -> io::Result<Option<File>> {
    match File::open(numbered(folder, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn is_same(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogOptions;
    use crate::log::{LogWriter, Stream};
    use std::sync::atomic::{AtomicBool, Ordering};

    fn all(folder: &Path, query: LogQuery) -> Vec<String> {
        let mut seen = Vec::new();
        let take = |entry: &LogEntry| {
            seen.push(String::from_utf8(entry.text.clone()).unwrap());
            true
        };
        read(folder, &query, take, || true).unwrap();
        seen
    }

    #[test]
    fn all_of_it_the_end_of_it_or_a_span_of_time() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(dir.path(), LogQuery::default()), [""; 0]);
        let mut log = LogWriter::new(dir.path(), LogOptions { max_size: 100, max_file: 5 });
        ["one\n", "two\n"].iter().for_each(|line| log.write(Stream::Stdout, line.as_bytes()));
        let middle = Timestamp::now();
        ["three\n", "fo", "ur\n"]
            .iter()
            .for_each(|part| log.write(Stream::Stderr, part.as_bytes()));
        let query = LogQuery::default();
        assert_eq!(all(dir.path(), query), ["one", "two", "three", "fo", "ur"]);
        let tail = |count| all(dir.path(), LogQuery { tail: Some(count), ..query });
        assert_eq!(tail(1), ["fo", "ur"]);
        assert_eq!(tail(2), ["three", "fo", "ur"]);
        assert_eq!((tail(0).len(), tail(9).len()), (0, 5));
        assert_eq!(all(dir.path(), LogQuery { until: Some(middle), ..query }), ["one", "two"]);
        assert_eq!(all(dir.path(), LogQuery { since: Some(middle), ..query }).len(), 3);
    }

    #[test]
    fn who_follows_misses_nothing_of_a_flood_that_the_files_hold() {
        let dir = tempfile::tempdir().unwrap();
        let has_ended = AtomicBool::new(false);
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let options = LogOptions { max_size: 10_000, max_file: 100 };
                let mut log = LogWriter::new(dir.path(), options);
                for number in 0..5000 {
                    log.write(Stream::Stdout, format!("{number}\n").as_bytes());
                }
                has_ended.store(true, Ordering::SeqCst);
            });
            let query = LogQuery { follow: true, ..LogQuery::default() };
            let take = |entry: &LogEntry| {
                seen.push(String::from_utf8(entry.text.clone()).unwrap());
                true
            };
            read(dir.path(), &query, take, || has_ended.load(Ordering::SeqCst)).unwrap();
        });
        let expected: Vec<_> = (0..5000).map(|number| number.to_string()).collect();
        assert!(seen == expected, "{} lines, from {:?} on", seen.len(), seen.first());
    }
}
