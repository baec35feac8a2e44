//! Files with holes where they have zeroes. The linker puts two MiB of padding into a vmlinux, so
//! that text and constants lie in huge pages of their own: guest RAM, which is zero already, need
//! not be filled with it, and keeps the page.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// What file systems allocate.
const BLOCK: usize = 4096;

/// Writes `content` to `file`, which is new, with a hole for each run of zeroes.
///
/// # Errors
/// The host's.
pub fn write(file: &File, content: &[u8]) -> io::Result<()> {
    file.set_len(content.len() as u64)?;
    let mut offset = 0;
    let same = |a: &[u8], b: &[u8]| is_zero(a) == is_zero(b);
    let blocks: Vec<&[u8]> = content.chunks(BLOCK).collect();
    for run in blocks.chunk_by(|a, b| same(a, b)) {
        let length = run.iter().map(|block| block.len()).sum::<usize>();
        if run.first().is_some_and(|block| !is_zero(block)) {
            file.write_all_at(&content[offset..offset + length], offset as u64)?;
        }
        offset += length;
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The parts of `range` where `file` has data: all of it where its file system knows no holes
/// (lseek(2), SEEK_DATA). Moves the file's position.
///
/// # Errors
/// The file ends within the range, or the host refused.
pub fn data(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    if file.metadata()?.len() < range.end {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut parts = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let start = match lseek(file, at as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            Err(Errno::ENXIO) => break, // There is none from here to the file's end.
            Err(Errno::EINVAL) => return Ok(vec![range]), // It does not know the question.
            Err(error) => return Err(error.into()),
        };
        if start >= range.end {
            break;
        }
        let end = (lseek(file, start as i64, Whence::SeekHole)? as u64).min(range.end);
        parts.push(start..end);
        at = end;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeroes_become_holes_and_read_as_before() {
        let file = tempfile::tempfile().unwrap();
        let mut content = vec![0; 9 * BLOCK + 10];
        content[2 * BLOCK + 1] = 1;
        content[7 * BLOCK] = 1;
        content[9 * BLOCK + 9] = 1;
        write(&file, &content).unwrap();
        let mut read = vec![0xff; content.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == content && file.metadata().unwrap().len() == content.len() as u64);
        let (length, block) = (content.len() as u64, BLOCK as u64);
        // A file system without holes has all of it.
        if file.metadata().unwrap().blocks() * 512 < length {
            let parts = data(&file, 0..length).unwrap();
            let expected = [2 * block..3 * block, 7 * block..8 * block, 9 * block..length];
            assert_eq!(parts, expected);
            assert_eq!(data(&file, block..2 * block).unwrap(), []);
            let middle = data(&file, 2 * block + 5..7 * block + 1).unwrap();
            assert_eq!(middle, [2 * block + 5..3 * block, 7 * block..7 * block + 1]);
        }
        assert!(data(&file, 0..length + 1).is_err());
        write(&tempfile::tempfile().unwrap(), &[]).unwrap();
    }
}
