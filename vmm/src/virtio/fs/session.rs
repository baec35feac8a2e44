//! One guest's use of a share: what every request and its answer are made of.

use std::time::Duration;

use super::protocol::{Arguments, Header, open};
use crate::backend::share::{CachePolicy, LockRequest, Share, Ticket};
use crate::backend::vectors::VectorBuffer;
use crate::memory::GuestRam;
use crate::virtio::chain::Chain;

/// How a request ended that did not fail.
pub enum Answer {
    /// What is in the [`Reply`](super::protocol::Reply).
    Reply,
    /// The header, and so many bytes that are in the chain's writable buffers behind it already.
    InPlace(u32),
    /// Nothing: the guest does not wait for one.
    Nothing,
    /// Nothing yet: that is for when the lock can be had.
    Waits(WaitingLock),
}

/// A lock that the guest waits for.
pub struct WaitingLock {
    /// To be asked for again.
    pub request: LockRequest,
    /// Its place among those who wait.
    #[expect(dead_code, reason = "held for its Drop")]
    pub ticket: Ticket,
}

/// A request, with all that it is about.
pub struct Request<'r> {
    pub header: Header,
    pub arguments: Arguments<'r>,
    /// For the content that is read or written.
    pub chain: &'r Chain,
    pub memory: &'r GuestRam,
    pub vectors: &'r mut VectorBuffer,
}

/// A share as a guest uses it.
pub struct Session {
    share: Share,
    cache: CachePolicy,
}

impl Session {
    /// For guests that keep of `share` what `cache` allows.
    pub fn new(share: Share, cache: CachePolicy) -> Self {
        Self { share, cache }
    }

    /// The folder.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// What the guest keeps of it.
    pub fn cache(&self) -> CachePolicy {
        self.cache
    }

    /// How long the guest may keep names and attributes.
    pub fn timeout(&self) -> Duration {
        self.cache.timeout()
    }

    /// `FOPEN_…` of a file.
    pub fn file_flags(&self) -> u32 {
        match self.cache {
            CachePolicy::None => open::DIRECT_IO,
            CachePolicy::Auto => 0,
            CachePolicy::Always => open::KEEP_CACHE,
        }
    }

    /// `FOPEN_…` of a directory.
    pub fn directory_flags(&self) -> u32 {
        match self.cache {
            CachePolicy::None | CachePolicy::Auto => 0,
            CachePolicy::Always => open::KEEP_CACHE | open::CACHE_DIR,
        }
    }
}
