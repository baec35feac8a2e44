//! Reading tar archives: members with their content, over the parser of tar-core, which bounds
//! what names and records may take and knows every form of sparse files.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::sys::time::TimeSpec;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

const BLOCK: u64 = 512;

/// An archive, read member by member from a stream.
pub(crate) struct Archive<R> {
    source: R,
    parser: Parser,
    /// Read, but not parsed yet.
    ahead: Vec<u8>,
    /// Of the current member.
    content_left: u64,
    padding_left: u64,
    /// Of the whole stream.
    bytes_left: u64,
}

/// One member; its content is read from the [`Archive`].
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) kind: EntryType,
    pub(crate) path: PathBuf,
    pub(crate) link: Option<PathBuf>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) modified: TimeSpec,
    pub(crate) device: (u32, u32),
    /// Of the file, with its holes.
    pub(crate) size: u64,
    /// Offsets and lengths of the data of a sparse file.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    /// Reads at most `bytes` of `source`.
    pub(crate) fn new(source: R, bytes: u64) -> Self {
        let limits = Limits { max_path_len: Some(libc::PATH_MAX as u32), ..Limits::default() };
        let mut parser = Parser::new(limits);
        // As other readers: a time that does not parse is no reason to refuse a layer.
        parser.set_ignore_pax_errors(true);
        let (ahead, content_left, padding_left) = (Vec::new(), 0, 0);
        Self { source, parser, ahead, content_left, padding_left, bytes_left: bytes }
    }

    /// Whether the stream is longer than it may be; reading then has failed.
    pub(crate) fn is_too_large(&self) -> bool {
        self.bytes_left == 0
    }

    /// The next member, after whatever was left of the one before. None at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Member>> {
        io::copy(&mut self.by_ref().content(), &mut io::sink())?;
        self.skip_padding()?;
        loop {
            let (consumed, member, wanted) = match self.parser.parse(&self.ahead) {
                Ok(ParseEvent::Entry { consumed, entry }) => {
                    (consumed, Some(Member::new(&entry, entry.size, None)), 0)
                }
                Ok(ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size }) => {
                    let map = sparse_map.iter().map(|part| (part.offset, part.length)).collect();
                    (consumed, Some(Member::new(&entry, real_size, Some(map))), 0)
                }
                Ok(ParseEvent::GlobalExtensions { consumed, .. }) => (consumed, None, 0),
                Ok(ParseEvent::NeedData { min_bytes }) => (0, None, min_bytes),
                Ok(ParseEvent::End { .. }) => return Ok(None),
                Err(error) => return Err(io::Error::other(error)),
            };
            self.ahead.drain(..consumed);
            if let Some((member, stored)) = member {
                self.content_left = stored;
                self.padding_left = stored.next_multiple_of(BLOCK) - stored;
                return Ok(Some(member));
            }
            if wanted > 0 && !self.read_ahead(wanted)? {
                return Ok(None);
            }
        }
    }

    /// The content of the member that `next` gave last.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn by_ref(&mut self) -> &mut Self {
        self
    }

    /// Reads until `wanted` bytes are there. False at the archive's end: some tools (umoci) leave
    /// out the end-of-archive marker, and Go's reader, which most others use, does not mind.
    /// Whether anything else is missing shows in the diff_id.
    fn read_ahead(&mut self, wanted: usize) -> io::Result<bool> {
        let missing = wanted.saturating_sub(self.ahead.len()) as u64;
        let limit = missing.min(self.bytes_left);
        let found = (&mut self.source).take(limit).read_to_end(&mut self.ahead)? as u64;
        self.bytes_left -= found;
        if self.bytes_left == 0 {
            return Err(too_large());
        }
        match found == missing {
            true => Ok(true),
            false if self.ahead.iter().all(|byte| *byte == 0) => Ok(false),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The padding behind the last member's content may be missing too.
    fn skip_padding(&mut self) -> io::Result<()> {
        let from_ahead = self.padding_left.min(self.ahead.len() as u64);
        self.ahead.drain(..from_ahead as usize);
        let left = self.padding_left - from_ahead;
        let skipped = io::copy(&mut (&mut self.source).take(left), &mut io::sink())?;
        self.bytes_left = self.bytes_left.saturating_sub(skipped);
        self.padding_left = 0;
        Ok(())
    }
}

fn too_large() -> io::Error {
    io::Error::other("the archive is too large")
}

/// A member's content as it is stored.
pub(crate) struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let archive = &mut *self.0;
        let wanted = archive.content_left.min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let count = if archive.ahead.is_empty() {
            let count = archive.source.read(&mut buffer[..wanted])?;
            archive.bytes_left = archive.bytes_left.saturating_sub(count as u64);
            if archive.bytes_left == 0 {
                return Err(too_large());
            }
            count
        } else {
            let count = wanted.min(archive.ahead.len());
            buffer[..count].copy_from_slice(&archive.ahead[..count]);
            archive.ahead.drain(..count);
            count
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        archive.content_left -= count as u64;
        Ok(count)
    }
}

impl Member {
    /// With the bytes that are stored.
    fn new(entry: &ParsedEntry<'_>, size: u64, sparse: Option<Vec<(u64, u64)>>) -> (Self, u64) {
        let path = |bytes: &Cow<'_, [u8]>| PathBuf::from(OsStr::from_bytes(bytes));
        let member = Self {
            kind: entry.entry_type,
            path: path(&entry.path),
            link: entry.link_target.as_ref().map(path),
            mode: entry.mode & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            modified: modified(entry),
            device: (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0)),
            size,
            sparse,
            attributes: entry
                .xattrs
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
        };
        (member, entry.size)
    }
}

/// The record's time is more exact than the header's, and may be before 1970 (pax(1), "mtime").
fn modified(entry: &ParsedEntry<'_>) -> TimeSpec {
    let record = entry.pax.and_then(|records| PaxExtensions::new(records).get("mtime"));
    let whole = i64::try_from(entry.mtime).unwrap_or(i64::MAX);
    record.and_then(time).unwrap_or_else(|| TimeSpec::new(whole, 0))
}

/// Seconds since 1970 with a fraction: `1700000000.123456789`, `-1.5`.
fn time(text: &str) -> Option<TimeSpec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if text.starts_with('-') && nanoseconds > 0 {
        // timespec counts the fraction upwards.
        return Some(TimeSpec::new(seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some(TimeSpec::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let parts = |text: &str| {
            let time = time(text).unwrap();
            (time.tv_sec(), time.tv_nsec())
        };
        assert_eq!(parts("1700000000"), (1_700_000_000, 0));
        assert_eq!(parts("1.5"), (1, 500_000_000));
        assert_eq!(parts("1.1234567899"), (1, 123_456_789));
        assert_eq!(parts("-1.5"), (-2, 500_000_000));
        assert_eq!(parts("-3"), (-3, 0));
        for bad in ["", "x", "1.x", "99999999999999999999", "-9223372036854775808.5"] {
            assert!(time(bad).is_none(), "{bad}");
        }
    }

    /// Members whose content is left unread, without padding and end, after stray zero blocks.
    #[test]
    fn members_follow_each_other_whatever_is_read_of_them() {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, size) in [("a", 5), ("b", 512), ("c", 1000), ("d", 0), ("e", 3)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            let content = vec![b'x'; size as usize];
            builder.append_data(&mut header, name, &content[..]).unwrap();
        }
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024 - 509);
        bytes.splice(0..0, [0; 512]);
        let mut archive = Archive::new(&bytes[..], 1 << 20);
        let mut names = Vec::new();
        while let Some(member) = archive.next().unwrap() {
            if names.len() % 2 == 0 {
                let mut start = [0; 2];
                let _ = archive.content().read(&mut start).unwrap();
            }
            names.push(member.path.to_str().unwrap().to_owned());
        }
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
    }
}
