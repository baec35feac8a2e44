//! Extended attributes.

use nix::errno::Errno;

use crate::virtio::fs::protocol::Reply;
use crate::virtio::fs::session::{Answer, Request, Session};

pub fn get(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let size = size(request)?;
    let name = request.arguments.text()?;
    let value = session.share().xattr(request.header.node, name)?;
    answer(size, &value, reply)
}

pub fn list(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let size = size(request)?;
    let names = session.share().xattr_names(request.header.node)?;
    answer(size, &names, reply)
}

pub fn set(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    // `struct fuse_setxattr_in`, the short one: FUSE_SETXATTR_EXT is not agreed on.
    let (size, flags) = (request.arguments.u32()?, request.arguments.u32()?);
    let name = request.arguments.text()?;
    let value = request.arguments.bytes(size as usize)?;
    session.share().set_xattr(request.header.node, name, value, flags)?;
    Ok(Answer::Reply)
}

pub fn remove(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let name = request.arguments.text()?;
    session.share().remove_xattr(request.header.node, name)?;
    Ok(Answer::Reply)
}

/// `struct fuse_getxattr_in`: how much the process has room for; 0 asks for the size.
fn size(request: &mut Request<'_>) -> Result<u32, Errno> {
    let size = request.arguments.u32()?;
    request.arguments.skip(4)?;
    Ok(size)
}

fn answer(room: u32, value: &[u8], reply: &mut Reply<'_>) -> Result<Answer, Errno> {
    if room == 0 {
        // At most XATTR_SIZE_MAX.
        reply.u32(value.len() as u32);
        reply.u32(0);
    } else if value.len() > room as usize {
        return Err(Errno::ERANGE);
    } else {
        reply.bytes(value);
    }
    Ok(Answer::Reply)
}
