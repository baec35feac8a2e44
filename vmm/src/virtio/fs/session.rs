//! One guest's use of a share: each request to what does it, and the answer back.

use std::time::Duration;

use nix::errno::Errno;

use super::operations::{attributes, content, directories, names, xattrs};
use super::protocol::{Arguments, Header, MAJOR, MINOR, OLDEST_MINOR, Reply, init, opcode, open};
use crate::backend::share::{CachePolicy, Share};
use crate::backend::vectors::VectorBuffer;
use crate::memory::GuestRam;
use crate::virtio::chain::Chain;

/// The longest read or write, and its pages.
const MAX_CONTENT: u32 = 1 << 20;
const MAX_PAGES: u16 = (MAX_CONTENT / 4096) as u16;
/// Most that the guest reads ahead; it asks for less by itself.
const MAX_READAHEAD: u32 = MAX_CONTENT;
/// Requests that the guest has under way without a process waiting: reads ahead and writes back.
const MAX_BACKGROUND: u16 = 64;
const CONGESTED: u16 = MAX_BACKGROUND / 4 * 3;

/// What we can do and want to.
const WANTED: u64 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::HANDLE_KILLPRIV_V2
    | init::INIT_EXT
    | init::DIRECT_IO_ALLOW_MMAP;

/// How a request ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What is in the [`Reply`].
    Reply,
    /// The header, and so many bytes that are in the chain's writable buffers behind it already.
    InPlace(u32),
    /// Nothing: the guest does not wait for one.
    Nothing,
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

    /// Does what a request asks for.
    ///
    /// # Errors
    /// What the guest is to be told.
    pub fn serve(&self, mut request: Request<'_>, reply: &mut Reply<'_>) -> Result<Answer, Errno> {
        let request = &mut request;
        match request.header.opcode {
            opcode::INIT => self.initialize(&mut request.arguments, reply),
            opcode::DESTROY => {
                self.share.clear();
                Ok(Answer::Reply)
            }
            // The answer of what was interrupted is on its way.
            opcode::INTERRUPT => Ok(Answer::Nothing),
            opcode::FORGET => names::forget(self, request),
            opcode::BATCH_FORGET => names::forget_several(self, request),
            opcode::LOOKUP => names::look_up(self, request, reply),
            opcode::CREATE => names::create(self, request, reply),
            opcode::TMPFILE => names::create_unnamed(self, request, reply),
            opcode::MKNOD => names::make_node(self, request, reply),
            opcode::MKDIR => names::make_directory(self, request, reply),
            opcode::SYMLINK => names::make_link(self, request, reply),
            opcode::LINK => names::link(self, request, reply),
            opcode::UNLINK | opcode::RMDIR => names::remove(self, request),
            opcode::RENAME | opcode::RENAME2 => names::rename(self, request),
            opcode::READLINK => names::read_link(self, request, reply),
            opcode::GETATTR => attributes::get(self, request, reply),
            opcode::SETATTR => attributes::change(self, request, reply),
            opcode::STATFS => attributes::file_system(self, request, reply),
            opcode::OPEN => content::open(self, request, reply),
            opcode::READ => content::read(self, request),
            opcode::WRITE => content::write(self, request, reply),
            opcode::FLUSH => content::flush(self, request),
            opcode::FSYNC => content::synchronize(self, request),
            opcode::SYNCFS => content::synchronize_all(self, request),
            opcode::RELEASE | opcode::RELEASEDIR => content::release(self, request),
            opcode::LSEEK => content::seek(self, request, reply),
            opcode::FALLOCATE => content::allocate(self, request),
            opcode::COPY_FILE_RANGE => content::copy(self, request, reply),
            opcode::OPENDIR => directories::open(self, request, reply),
            opcode::READDIR | opcode::READDIRPLUS => directories::read(self, request, reply),
            opcode::FSYNCDIR => directories::synchronize(self, request),
            opcode::GETXATTR => xattrs::get(self, request, reply),
            opcode::LISTXATTR => xattrs::list(self, request, reply),
            opcode::SETXATTR => xattrs::set(self, request),
            opcode::REMOVEXATTR => xattrs::remove(self, request),
            // None of them has a meaning that host and guest share.
            opcode::IOCTL => Err(Errno::ENOTTY),
            // Locks among them, which the guest's kernel then keeps by itself: it can wait for one
            // and give up, which a request on a virtqueue cannot, and see a deadlock.
            _ => Err(Errno::ENOSYS),
        }
    }

    fn initialize(
        &self,
        arguments: &mut Arguments<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Answer, Errno> {
        let (major, minor) = (arguments.u32()?, arguments.u32()?);
        let readahead = arguments.u32()?;
        let mut offered = u64::from(arguments.u32()?);
        if major < MAJOR || (major == MAJOR && minor < OLDEST_MINOR) {
            return Err(Errno::EPROTO);
        }
        if offered & init::INIT_EXT != 0 {
            offered |= u64::from(arguments.u32()?) << 32;
        }
        // Of a mount before that was not ended, for one.
        self.share.clear();
        let mut wanted = WANTED;
        if self.cache == CachePolicy::Always {
            wanted |= init::CACHE_SYMLINKS;
        }
        let agreed = offered & wanted;
        reply.u32(MAJOR);
        reply.u32(MINOR);
        // With a newer major version the guest comes again with ours.
        if major == MAJOR {
            reply.u32(readahead.min(MAX_READAHEAD));
            // The lower half, then the upper one.
            reply.u32(agreed as u32);
            reply.u16(MAX_BACKGROUND);
            reply.u16(CONGESTED);
            reply.u32(MAX_CONTENT);
            // Nanoseconds that times are exact to.
            reply.u32(1);
            reply.u16(MAX_PAGES);
            reply.u16(0);
            reply.u32((agreed >> 32) as u32);
            reply.zeroes(28);
        }
        Ok(Answer::Reply)
    }
}
