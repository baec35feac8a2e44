//! Locks of a file's bytes (fcntl(2)).

use nix::errno::Errno;

use crate::backend::share::{LockKind, LockRange, LockRequest};
use crate::virtio::fs::protocol::{LK_FLOCK, Reply, lock_type};
use crate::virtio::fs::session::{Answer, Request, Session, WaitingLock};

pub fn obstacle(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let asked = arguments(request)?;
    // `struct fuse_file_lock`.
    match session.share().obstacle(&asked)? {
        Some(found) => {
            reply.u64(found.range.start);
            reply.u64(found.range.end);
            reply.u32(match found.kind {
                LockKind::Read => lock_type::READ,
                LockKind::Write => lock_type::WRITE,
            });
            reply.u32(found.process);
        }
        None => {
            reply.zeroes(16);
            reply.u32(lock_type::UNLOCK);
            reply.u32(0);
        }
    }
    Ok(Answer::Reply)
}

pub fn lock(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    session.share().lock(&arguments(request)?)?;
    Ok(Answer::Reply)
}

/// As [`lock`], but where another is in the way the answer comes when it is not any more.
pub fn lock_or_wait(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let request = arguments(request)?;
    let share = session.share();
    match share.lock(&request) {
        Err(Errno::EAGAIN) => {
            let ticket = share.wait_for_lock(&request)?;
            Ok(Answer::Waits(WaitingLock { request, ticket }))
        }
        locked => locked.map(|()| Answer::Reply),
    }
}

/// `struct fuse_lk_in`.
fn arguments(request: &mut Request<'_>) -> Result<LockRequest, Errno> {
    let file = request.header.node;
    let arguments = &mut request.arguments;
    let (handle, owner) = (arguments.u64()?, arguments.u64()?);
    let range = LockRange { start: arguments.u64()?, end: arguments.u64()? };
    let (kind, process, flags) = (arguments.u32()?, arguments.u32()?, arguments.u32()?);
    // Those of flock(2) were not agreed on: they stay in the guest.
    if flags & LK_FLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = match kind {
        lock_type::READ => Some(LockKind::Read),
        lock_type::WRITE => Some(LockKind::Write),
        lock_type::UNLOCK => None,
        _ => return Err(Errno::EINVAL),
    };
    Ok(LockRequest { file, handle, owner, range, kind, process })
}
