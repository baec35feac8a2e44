//! Attributes of files, and of the file system.

use nix::errno::Errno;

use crate::backend::share::{Changes, Timestamp};
use crate::virtio::fs::protocol::{Reply, set};
use crate::virtio::fs::session::{Answer, Request, Session};

pub fn get(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let attributes = session.share().attributes(request.header.node)?;
    reply.attributes_for(&attributes, session.timeout());
    Ok(Answer::Reply)
}

pub fn change(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    // `struct fuse_setattr_in`.
    let arguments = &mut request.arguments;
    let valid = arguments.u32()?;
    arguments.skip(4)?;
    let (handle, size) = (arguments.u64()?, arguments.u64()?);
    // The lock's owner.
    arguments.skip(8)?;
    let (accessed, modified) = (arguments.u64()?, arguments.u64()?);
    // The host sets the time of change.
    arguments.skip(8)?;
    let (accessed_ns, modified_ns) = (arguments.u32()?, arguments.u32()?);
    arguments.skip(4)?;
    let mode = arguments.u32()?;
    arguments.skip(4)?;
    let (uid, gid) = (arguments.u32()?, arguments.u32()?);

    let has = |bit| valid & bit != 0;
    let time = |bit, now, seconds: u64, nanoseconds| match (has(bit), has(now)) {
        (false, _) => None,
        (true, true) => Some(Timestamp::Now),
        (true, false) => Some(Timestamp::At { seconds: seconds.cast_signed(), nanoseconds }),
    };
    let changes = Changes {
        mode: has(set::MODE).then_some(mode),
        uid: has(set::UID).then_some(uid),
        gid: has(set::GID).then_some(gid),
        size: has(set::SIZE).then_some(size),
        accessed: time(set::ATIME, set::ATIME_NOW, accessed, accessed_ns),
        modified: time(set::MTIME, set::MTIME_NOW, modified, modified_ns),
        drop_privileges: has(set::KILL_SUIDGID),
    };
    let handle = has(set::FH).then_some(handle);
    let attributes = session.share().change(request.header.node, handle, &changes)?;
    reply.attributes_for(&attributes, session.timeout());
    Ok(Answer::Reply)
}

pub fn file_system(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let found = session.share().file_system(request.header.node)?;
    // `struct fuse_kstatfs`.
    reply.u64(found.blocks());
    reply.u64(found.blocks_free());
    reply.u64(found.blocks_available());
    reply.u64(found.files());
    reply.u64(found.files_free());
    let small = |value| u32::try_from(value).unwrap_or(u32::MAX);
    reply.u32(small(found.block_size()));
    reply.u32(small(found.name_max()));
    reply.u32(small(found.fragment_size()));
    reply.zeroes(28);
    Ok(Answer::Reply)
}
