//! Initial RAM file systems, and the modules that other boot protocols know them as.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::error::BootError;
use crate::backend::regular_file;
use crate::memory::{GuestRam, HOLE_START};

/// A piece of the initial RAM file system. Linux accepts several cpio archives one after the
/// other (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Clone, Debug)]
pub enum InitrdPart {
    /// A file, compressed or not.
    File(PathBuf),
    /// Bytes made by the caller.
    Bytes(Cow<'static, [u8]>),
}

/// A part of the initrd, opened, or made here.
enum Source<'a> {
    File(File, u64, &'a PathBuf),
    Bytes(&'a [u8]),
}

impl Source<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::File(_, length, _) => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// Loads all parts one after the other, each at a multiple of `alignment`, as high as `limit` and RAM
/// allow, and returns address and length of each.
///
/// # Errors
/// A part cannot be read, or there is no room above `kernel_end`.
pub fn load(
    ram: &GuestRam,
    parts: &[InitrdPart],
    alignment: u64,
    kernel_end: u64,
    limit: u64,
) -> Result<Vec<(u64, u64)>, BootError> {
    let sources = parts.iter().map(open_part).collect::<Result<Vec<_>, _>>()?;
    let limit = limit.min(HOLE_START).min(ram.last_addr().0 + 1);
    let too_large = |length| BootError::InitrdTooLarge { length, kernel_end, limit };
    let mut length = 0u64;
    for source in &sources {
        length = length
            .checked_next_multiple_of(alignment)
            .and_then(|start| start.checked_add(source.length()))
            .ok_or_else(|| too_large(u64::MAX))?;
    }
    if length == 0 {
        return Ok(Vec::new());
    }
    let start = limit.checked_sub(length).ok_or_else(|| too_large(length))? & !0xfff;
    if start < kernel_end.next_multiple_of(4096) {
        return Err(too_large(length));
    }
    let mut address = start;
    let mut loaded = Vec::new();
    for source in sources {
        address = address.next_multiple_of(alignment);
        let size = source.length();
        match source {
            Source::Bytes(bytes) => ram.write_slice(bytes, GuestAddress(address))?,
            Source::File(mut file, _, path) => ram
                .read_exact_volatile_from(GuestAddress(address), &mut file, size as usize)
                .map_err(|e| BootError::Initrd {
                    path: path.clone(),
                    source: io::Error::other(e),
                })?,
        }
        loaded.push((address, size));
        address += size;
    }
    Ok(loaded)
}

fn open_part(part: &InitrdPart) -> Result<Source<'_>, BootError> {
    match part {
        InitrdPart::Bytes(bytes) => Ok(Source::Bytes(bytes)),
        InitrdPart::File(path) => {
            let (file, length) = regular_file::open(path)
                .map_err(|source| BootError::Initrd { path: path.clone(), source })?;
            Ok(Source::File(file, length, path))
        }
    }
}
