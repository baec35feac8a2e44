//! A blob on its way into the store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::{Store, lock::FileLock, publish};
use crate::blob::{BlobId, hex};
use crate::error::{ImageError, io_error};

/// What there is to do about a blob.
pub enum Arrival {
    /// Nothing: the store has it.
    Present,
    /// Wait: somebody else is bringing it.
    Busy,
    /// It is not here, and nobody else brings it: it is the caller's to bring.
    Wanted(Box<Incoming>),
}

/// A blob that only we write, in `partial`. What was received stays there when this is dropped
/// unfinished, to be resumed.
pub struct Incoming {
    id: BlobId,
    size: u64,
    received: u64,
    hasher: Sha256,
    file: File,
    partial: PathBuf,
    target: PathBuf,
    lock: FileLock,
}

impl Store {
    /// Begins to bring a blob in, without waiting for others who do.
    pub fn receive(&self, id: &BlobId, size: u64) -> Result<Arrival, ImageError> {
        if self.blobs().path(id).exists() {
            return Ok(Arrival::Present);
        }
        match FileLock::try_exclusive(&self.lock_path(&blob_lock(id)))? {
            Some(lock) => self.receive_locked(id, size, lock),
            None => Ok(Arrival::Busy),
        }
    }

    fn receive_locked(
        &self,
        id: &BlobId,
        size: u64,
        lock: FileLock,
    ) -> Result<Arrival, ImageError> {
        let target = self.blobs().path(id);
        if target.exists() {
            return Ok(Arrival::Present);
        }
        let partial = self.partial(&blob_lock(id));
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(&partial);
        let file = file.map_err(io_error("write to", &partial))?;
        let (id, hasher) = (id.clone(), Sha256::new());
        let mut incoming = Incoming { id, size, received: 0, hasher, file, partial, target, lock };
        incoming.rehash()?;
        Ok(Arrival::Wanted(Box::new(incoming)))
    }

    /// Takes `source` in under `id`, if its digest and size are right.
    pub fn take_in(&self, id: &BlobId, size: u64, mut source: impl Read) -> Result<(), ImageError> {
        if self.blobs().path(id).exists() {
            return Ok(());
        }
        let lock = FileLock::exclusive(&self.lock_path(&blob_lock(id)))?;
        let Arrival::Wanted(mut incoming) = self.receive_locked(id, size, lock)? else {
            return Ok(());
        };
        incoming.restart()?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(incoming.give_up(io_error("read", id.full())(error))),
            };
            if count == 0 {
                return incoming.finish();
            }
            if let Err(error) = incoming.write(&buffer[..count]) {
                return Err(incoming.give_up(error));
            }
        }
    }

    /// Takes in a document that we wrote ourselves.
    pub fn take_in_bytes(&self, content: &[u8]) -> Result<BlobId, ImageError> {
        let id = BlobId::of(content);
        self.take_in(&id, content.len() as u64, content)?;
        Ok(id)
    }

    /// Takes in a file that we made in `partial`, with its digest already known.
    pub fn adopt(&self, id: &BlobId, file: &std::path::Path) -> Result<(), ImageError> {
        let _lock = FileLock::exclusive(&self.lock_path(&blob_lock(id)))?;
        match self.blobs().path(id) {
            target if target.exists() => fs::remove_file(file).map_err(io_error("remove", file)),
            target => publish(file, &target),
        }
    }
}

impl Incoming {
    /// Bytes that are here already.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether all bytes are here, though not verified.
    pub fn is_complete(&self) -> bool {
        self.received == self.size
    }

    /// Forgets what is here, for a source that can only send all of it.
    pub fn restart(&mut self) -> Result<(), ImageError> {
        self.file.set_len(0).map_err(io_error("write to", &self.partial))?;
        io::Seek::rewind(&mut self.file).map_err(io_error("write to", &self.partial))?;
        (self.received, self.hasher) = (0, Sha256::new());
        Ok(())
    }

    /// Adds what comes next.
    ///
    /// # Errors
    /// It is more than the descriptor said, or the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let found = self.received.saturating_add(bytes.len() as u64);
        if found > self.size {
            return Err(self.wrong_size(found));
        }
        self.file.write_all(bytes).map_err(io_error("write to", &self.partial))?;
        self.hasher.update(bytes);
        self.received = found;
        Ok(())
    }

    /// Verifies it and gives it its name. What is wrong is thrown away.
    pub fn finish(self) -> Result<(), ImageError> {
        if self.received != self.size {
            let error = self.wrong_size(self.received);
            return Err(self.give_up(error));
        }
        let found = hex(&self.hasher.clone().finalize());
        if found != self.id.hex() {
            let expected = self.id.full();
            return Err(self.give_up(ImageError::DigestMismatch { expected, found }));
        }
        publish(&self.partial, &self.target)?;
        // Nobody needs the lock's file again; where removing fails the collector does it.
        let _ = self.lock.remove();
        Ok(())
    }

    /// Throws away what is here, because of `error`.
    pub(crate) fn give_up(self, error: ImageError) -> ImageError {
        // The error that led here is the one to tell.
        let _ = fs::remove_file(&self.partial);
        let _ = self.lock.remove();
        error
    }

    fn wrong_size(&self, found: u64) -> ImageError {
        ImageError::SizeMismatch { digest: self.id.full(), expected: self.size, found }
    }

    /// Hashes what an earlier attempt left.
    fn rehash(&mut self) -> Result<(), ImageError> {
        let mut buffer = vec![0; 1 << 17];
        loop {
            let count = self.file.read(&mut buffer).map_err(io_error("read", &self.partial))?;
            if count == 0 {
                break;
            }
            self.hasher.update(&buffer[..count]);
            self.received += count as u64;
        }
        // More than there can be is nothing that we left.
        if self.received > self.size { self.restart() } else { Ok(()) }
    }
}

fn blob_lock(id: &BlobId) -> String {
    format!("blob-{}", id.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn wanted(store: &Store, id: &BlobId, size: u64) -> Incoming {
        match store.receive(id, size).unwrap() {
            Arrival::Wanted(incoming) => *incoming,
            Arrival::Present => panic!("present"),
            Arrival::Busy => panic!("busy"),
        }
    }

    #[test]
    fn a_blob_comes_in_only_when_digest_and_size_are_right() {
        let (dir, store) = store();
        let id = BlobId::of(b"content");
        let wrong = store.take_in(&id, 7, &b"CONTENT"[..]).unwrap_err();
        assert!(matches!(wrong, ImageError::DigestMismatch { .. }), "{wrong}");
        let longer = store.take_in(&id, 7, &b"content and more"[..]).unwrap_err();
        assert!(matches!(longer, ImageError::SizeMismatch { found: 16, .. }), "{longer}");
        let shorter = store.take_in(&id, 7, &b"cont"[..]).unwrap_err();
        assert!(matches!(shorter, ImageError::SizeMismatch { found: 4, .. }), "{shorter}");
        for folder in ["blobs/sha256", "partial"] {
            let left = fs::read_dir(dir.path().join(folder)).unwrap().count();
            assert_eq!(left, 0, "something was left in {folder}");
        }
        store.take_in(&id, 7, &b"content"[..]).unwrap();
        assert_eq!(store.blobs().read_document(&id).unwrap(), b"content");
    }

    #[test]
    fn what_was_received_is_resumed() {
        let (_dir, store) = store();
        let id = BlobId::of(b"content");
        let mut first = wanted(&store, &id, 7);
        first.write(b"con").unwrap();
        assert!(matches!(store.receive(&id, 7).unwrap(), Arrival::Busy));
        drop(first);
        let mut second = wanted(&store, &id, 7);
        assert_eq!(second.received(), 3);
        second.write(b"tent").unwrap();
        second.finish().unwrap();
        assert!(matches!(store.receive(&id, 7).unwrap(), Arrival::Present));
        assert_eq!(store.blobs().read_document(&id).unwrap(), b"content");
    }

    #[test]
    fn a_forged_beginning_is_found_out_and_thrown_away() {
        let (_dir, store) = store();
        let id = BlobId::of(b"content");
        wanted(&store, &id, 7).write(b"CON").unwrap();
        let mut resumed = wanted(&store, &id, 7);
        resumed.write(b"tent").unwrap();
        assert!(matches!(resumed.finish(), Err(ImageError::DigestMismatch { .. })));
        assert_eq!(wanted(&store, &id, 7).received(), 0);
    }
}
