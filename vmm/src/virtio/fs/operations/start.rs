//! A mount's beginning and its end.

use nix::errno::Errno;

use crate::backend::share::CachePolicy;
use crate::virtio::fs::protocol::{MAJOR, MINOR, OLDEST_MINOR, Reply, init};
use crate::virtio::fs::session::{Answer, Request, Session};

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
    | init::POSIX_LOCKS
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

/// What both sides can do is agreed on.
pub fn initialize(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let arguments = &mut request.arguments;
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
    session.share().clear();
    let mut wanted = WANTED;
    if session.cache() == CachePolicy::Always {
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

/// The guest has nothing open any more, and knows no file.
pub fn end(session: &Session) -> Result<Answer, Errno> {
    session.share().clear();
    Ok(Answer::Reply)
}
