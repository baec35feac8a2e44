//! Writing files with holes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Writes the parts that `map` names, offsets and lengths, at their places in a file of `size`
/// bytes.
pub(super) fn write(
    map: &[(u64, u64)],
    size: u64,
    mut source: impl Read,
    mut file: &File,
) -> io::Result<()> {
    for (offset, length) in map {
        let end = offset.checked_add(*length).filter(|end| *end <= size);
        if end.is_none() {
            return Err(io::Error::other("a part of a sparse file lies behind its end"));
        }
        file.seek(SeekFrom::Start(*offset))?;
        if io::copy(&mut (&mut source).take(*length), &mut file)? != *length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    file.set_len(size)
}
