//! Telling how far a transfer is.

/// Is told about every blob that moves, by its digest.
pub trait Progress: Sync {
    /// A blob of `size` bytes begins to move; `done` of them are there already.
    fn begin(&self, digest: &str, size: u64, done: u64);
    /// `bytes` more of it have moved.
    fn advance(&self, digest: &str, bytes: u64);
    /// It is where it should be. Told of blobs, too, that had not to be moved.
    fn end(&self, digest: &str);
}

/// A [`Progress`] that tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _digest: &str, _size: u64, _done: u64) {}
    fn advance(&self, _digest: &str, _bytes: u64) {}
    fn end(&self, _digest: &str) {}
}
