//! Files: opened, read, written, synchronized.

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::virtio::fs::protocol::{FSYNC_FDATASYNC, OPEN_KILL_SUIDGID, Reply, WRITE_KILL_SUIDGID};
use crate::virtio::fs::request::{WRITE_CONTENT, part};
use crate::virtio::fs::session::{Answer, Request, Session};

pub fn open(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let flags = OFlag::from_bits_retain(request.arguments.u32()?.cast_signed());
    let drop_privileges = request.arguments.u32()? & OPEN_KILL_SUIDGID != 0;
    let handle = session.share().open_file(request.header.node, flags, drop_privileges)?;
    reply.opened(handle, session.file_flags());
    Ok(Answer::Reply)
}

pub fn read(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    // `struct fuse_read_in`; the rest of it says nothing to us.
    let arguments = &mut request.arguments;
    let (handle, offset, size) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
    let room = part(&request.chain.writable, Reply::HEADER as u64, size.into());
    let room = room.ok_or(Errno::EINVAL)?;
    let share = session.share();
    let count = share.read(handle, offset, request.memory, &room, request.vectors)?;
    // At most `size`.
    Ok(Answer::InPlace(count as u32))
}

pub fn write(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    // `struct fuse_write_in`.
    let arguments = &mut request.arguments;
    let (handle, offset, size) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
    let drop_privileges = arguments.u32()? & WRITE_KILL_SUIDGID != 0;
    // All of it must be there.
    arguments.skip(16)?;
    let content = part(&request.chain.readable, WRITE_CONTENT, size.into());
    let content = (request.memory, &content.ok_or(Errno::EINVAL)?[..]);
    let share = session.share();
    let count = share.write(handle, offset, drop_privileges, content, request.vectors)?;
    // At most `size`.
    reply.u32(count as u32);
    reply.u32(0);
    Ok(Answer::Reply)
}

pub fn flush(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    // `struct fuse_flush_in`.
    let arguments = &mut request.arguments;
    let handle = arguments.u64()?;
    arguments.skip(8)?;
    session.share().flush(request.header.node, handle, arguments.u64()?)?;
    Ok(Answer::Reply)
}

pub fn synchronize(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let (handle, flags) = (request.arguments.u64()?, request.arguments.u32()?);
    session.share().synchronize(handle, flags & FSYNC_FDATASYNC != 0)?;
    Ok(Answer::Reply)
}

pub fn synchronize_all(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    session.share().synchronize_all(request.header.node)?;
    Ok(Answer::Reply)
}

pub fn release(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    session.share().release(request.arguments.u64()?)?;
    Ok(Answer::Reply)
}

pub fn seek(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let arguments = &mut request.arguments;
    let (handle, offset, whence) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
    reply.u64(session.share().seek(handle, offset, whence)?);
    Ok(Answer::Reply)
}

pub fn allocate(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let arguments = &mut request.arguments;
    let (handle, offset) = (arguments.u64()?, arguments.u64()?);
    let (length, mode) = (arguments.u64()?, arguments.u32()?);
    session.share().allocate(handle, offset, length, mode)?;
    Ok(Answer::Reply)
}

pub fn copy(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    // `struct fuse_copy_file_range_in`.
    let arguments = &mut request.arguments;
    let from = (arguments.u64()?, arguments.u64()?);
    // The file, which its handle says as well.
    arguments.skip(8)?;
    let to = (arguments.u64()?, arguments.u64()?);
    let length = arguments.u64()?;
    // There are no flags yet.
    if arguments.u64()? != 0 {
        return Err(Errno::EINVAL);
    }
    // Far below 2^32.
    reply.u32(session.share().copy(from, to, length)? as u32);
    reply.u32(0);
    Ok(Answer::Reply)
}
