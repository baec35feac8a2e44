//! A large image of files as images have them: many small ones, some large, text and what does
//! not compress. The same bytes every time.

use std::io;
use std::path::Path;

use super::archive;

/// Mean size of a file, in bytes, as in Debian's and Ubuntu's images.
const MEAN_FILE: u64 = 32 << 10;
const WORDS: [&str; 16] = [
    "return",
    "the",
    "struct",
    "0x00",
    "license",
    "of",
    "const",
    "\n",
    "void",
    "error",
    "copyright",
    "a",
    "include",
    "import",
    "{",
    "}",
];

/// Writes a tar archive of an OCI image layout: `layers` layers with `bytes` bytes of files in all.
pub(super) fn write(path: &Path, bytes: u64, layers: u32) -> io::Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let each = bytes / u64::from(layers.max(1));
    archive::write(path, (0..layers).map(|number| layer(&mut random, number, each)))
}

fn layer(random: &mut Random, number: u32, bytes: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let (mut written, mut count) = (0, 0);
    while written < bytes {
        // A mean of the squares' is a third of their largest: most are small, some are not.
        let root = random.below(1 << 16);
        let size = (root * root / (1 << 16) * 3 * MEAN_FILE / (1 << 16)).min(bytes - written);
        let content = match random.below(4) {
            0 => random.noise(size),
            _ => random.text(size),
        };
        let name = format!("layer{number}/{}/{count}", count / 50);
        archive::add(&mut archive, &name, 0o644, &content)?;
        (written, count) = (written + size.max(1), count + 1);
    }
    archive.into_inner()
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn noise(&mut self, size: u64) -> Vec<u8> {
        let words = size.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(size as usize);
        bytes
    }

    fn text(&mut self, size: u64) -> Vec<u8> {
        let mut text = Vec::with_capacity(size as usize + 16);
        while (text.len() as u64) < size {
            let number = self.next();
            text.extend_from_slice(WORDS[(number % 16) as usize].as_bytes());
            // Now and then something that was not there before.
            match (number >> 8) % 4 {
                0 => text.extend_from_slice(format!("{:x}", number >> 48).as_bytes()),
                _ => text.push(b' '),
            }
        }
        text.truncate(size as usize);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_as_large_as_asked_for_and_the_same_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            write(&path, 3 << 20, 3).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = write("first");
        assert!(first == write("second"));
        // It compresses, as images do, but not to nothing.
        assert!((1 << 20..5 << 19).contains(&first.len()), "{}", first.len());
        let plain = layer(&mut Random(1), 0, 1 << 20).unwrap();
        let mut archive = tar::Archive::new(&plain[..]);
        let sizes: Vec<u64> =
            archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
        assert!((1 << 19..=1 << 20).contains(&sizes.iter().sum::<u64>()), "{sizes:?}");
        assert!((8..200).contains(&sizes.len()), "{sizes:?}");
    }
}
