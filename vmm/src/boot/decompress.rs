//! The compressions a bzImage's payload comes in (Linux, scripts/Makefile.lib).

use std::io::{self, Read};

/// A vmlinux is some tens of MiB; anything above is a bomb.
const LIMIT: u64 = 1 << 30;

/// What the first bytes of a payload say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// The payload is the kernel itself.
    None,
    /// RFC 1952.
    Gzip,
    /// With the x86 filter, as the kernel uses it.
    Xz,
    /// RFC 8878.
    Zstd,
    /// The "legacy" frame of the lz4 tool.
    Lz4,
    /// Named so that an operator knows what is missing.
    Unsupported(&'static str),
}

impl Compression {
    /// Recognises a payload by its magic number.
    pub fn of(payload: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Compression); 8] = [
            (b"\x7fELF", Compression::None),
            (b"\x1f\x8b", Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x02\x21\x4c\x18", Compression::Lz4),
            (b"BZh", Compression::Unsupported("bzip2")),
            (b"\x5d\0\0", Compression::Unsupported("lzma")),
            (b"\x89LZO", Compression::Unsupported("lzo")),
        ];
        MAGIC.iter().find(|(magic, _)| payload.starts_with(magic)).map(|&(_, found)| found)
    }
}

/// Decompresses a payload. The kernel's build appends the size as 4 bytes, which for gzip are
/// the last bytes of its own trailer.
///
/// # Errors
/// What the decoder found wrong, or `Unsupported`.
pub fn decompress(compression: Compression, payload: &[u8]) -> io::Result<Vec<u8>> {
    let size_appended = payload.len().saturating_sub(4);
    match compression {
        Compression::None => Ok(payload.to_vec()),
        Compression::Gzip => read_all(flate2::read::GzDecoder::new(payload)),
        Compression::Xz => read_all(lzma_rust2::XzReader::new(&payload[..size_appended], false)),
        Compression::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(&payload[..size_appended]);
            read_all(decoder.map_err(io::Error::other)?)
        }
        Compression::Lz4 => lz4_legacy(&payload[..size_appended]),
        Compression::Unsupported(name) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} is not supported")))
        }
    }
}

fn read_all(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    if decoder.take(LIMIT + 1).read_to_end(&mut output)? as u64 > LIMIT {
        return Err(too_long());
    }
    Ok(output)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel is longer than 1 GiB")
}

/// Legacy frame (lz4_Frame_format.md, "Legacy frame"): after the magic, blocks of 8 MiB when
/// decompressed, each behind its compressed size; the last one may be shorter.
fn lz4_legacy(frame: &[u8]) -> io::Result<Vec<u8>> {
    const BLOCK: usize = 8 << 20;
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut rest = frame.get(4..).ok_or_else(cut)?;
    let mut output = Vec::new();
    while !rest.is_empty() {
        let (size, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (block, after) = after.split_at_checked(size).ok_or_else(cut)?;
        let start = output.len();
        if (start + BLOCK) as u64 > LIMIT {
            return Err(too_long());
        }
        output.resize(start + BLOCK, 0);
        let length = lz4_flex::block::decompress_into(block, &mut output[start..])
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        output.truncate(start + length);
        rest = after;
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// As the kernel's `size_append` does.
    fn with_size(mut payload: Vec<u8>, size: usize) -> Vec<u8> {
        payload.extend((size as u32).to_le_bytes());
        payload
    }

    fn sample() -> Vec<u8> {
        (0..100_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
    }

    #[test]
    fn gzip_is_decoded() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&sample()).unwrap();
        let payload = encoder.finish().unwrap();
        assert_eq!(Compression::of(&payload), Some(Compression::Gzip));
        assert_eq!(decompress(Compression::Gzip, &payload).unwrap(), sample());
        assert!(decompress(Compression::Gzip, &payload[..payload.len() / 2]).is_err());
    }

    #[test]
    fn zstd_is_decoded() {
        let plain = sample();
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let payload = ruzstd::encoding::compress_to_vec(plain.as_slice(), level);
        assert_eq!(Compression::of(&payload), Some(Compression::Zstd));
        let payload = with_size(payload, plain.len());
        assert_eq!(decompress(Compression::Zstd, &payload).unwrap(), plain);
        assert!(decompress(Compression::Zstd, &payload[..payload.len() / 2]).is_err());
    }

    #[test]
    fn lz4_legacy_frames_are_decoded_block_by_block() {
        let plain = vec![7; (8 << 20) + 1000];
        let mut payload = b"\x02\x21\x4c\x18".to_vec();
        for block in plain.chunks(8 << 20) {
            let compressed = lz4_flex::block::compress(block);
            payload.extend((compressed.len() as u32).to_le_bytes());
            payload.extend(compressed);
        }
        assert_eq!(Compression::of(&payload), Some(Compression::Lz4));
        let payload = with_size(payload, plain.len());
        assert_eq!(decompress(Compression::Lz4, &payload).unwrap(), plain);
        for cut in [2, 5, 7, 12, payload.len() - 10] {
            assert!(decompress(Compression::Lz4, &payload[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn other_payloads_are_named_or_unknown() {
        assert_eq!(Compression::of(b"BZh91"), Some(Compression::Unsupported("bzip2")));
        let error = decompress(Compression::Unsupported("bzip2"), b"BZh91").unwrap_err();
        assert_eq!(error.to_string(), "bzip2 is not supported");
        assert_eq!(Compression::of(b"\0\0\0\0"), None);
        assert_eq!(Compression::of(b""), None);
    }
}
