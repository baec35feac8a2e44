//! Names: looked up, made, renamed, removed, forgotten.

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::backend::share::name::Name;
use crate::backend::share::{Creator, Entry};
use crate::virtio::fs::protocol::{Reply, opcode};
use crate::virtio::fs::session::{Answer, Request, Session};

pub fn forget(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let lookups = request.arguments.u64()?;
    session.share().forget(request.header.node, lookups);
    Ok(Answer::Nothing)
}

pub fn forget_several(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let arguments = &mut request.arguments;
    let count = arguments.u32()?;
    arguments.skip(4)?;
    for _ in 0..count {
        let (node, lookups) = (arguments.u64()?, arguments.u64()?);
        session.share().forget(node, lookups);
    }
    Ok(Answer::Nothing)
}

pub fn look_up(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let name = name(request)?;
    let entry = session.share().look_up(request.header.node, name)?;
    answer(session, reply, &entry)
}

pub fn create(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let (flags, creator) = create_arguments(request)?;
    let name = name(request)?;
    let made = session.share().create(request.header.node, name, flags, creator)?;
    answer_opened(session, reply, made)
}

pub fn create_unnamed(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let (flags, creator) = create_arguments(request)?;
    let made = session.share().create_unnamed(request.header.node, flags, creator)?;
    answer_opened(session, reply, made)
}

/// `struct fuse_create_in`.
fn create_arguments(request: &mut Request<'_>) -> Result<(OFlag, Creator), Errno> {
    let flags = OFlag::from_bits_retain(request.arguments.u32()?.cast_signed());
    let mode = request.arguments.u32()?;
    // The umask, applied already, and flags of opening.
    request.arguments.skip(8)?;
    Ok((flags, creator(request, mode)))
}

pub fn make_node(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let mode = request.arguments.u32()?;
    // The device's number, the umask and padding.
    request.arguments.skip(12)?;
    let name = name(request)?;
    let creator = creator(request, mode);
    let entry = session.share().make_node(request.header.node, name, creator)?;
    answer(session, reply, &entry)
}

pub fn make_directory(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let mode = request.arguments.u32()?;
    // The umask.
    request.arguments.skip(4)?;
    let name = name(request)?;
    let creator = creator(request, mode);
    let entry = session.share().make_directory(request.header.node, name, creator)?;
    answer(session, reply, &entry)
}

pub fn make_link(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let name = name(request)?;
    let target = request.arguments.text()?;
    let creator = creator(request, 0);
    let entry = session.share().make_link(request.header.node, name, target, creator)?;
    answer(session, reply, &entry)
}

pub fn link(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let old = request.arguments.u64()?;
    let name = name(request)?;
    let entry = session.share().link(old, request.header.node, name)?;
    answer(session, reply, &entry)
}

pub fn remove(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let name = name(request)?;
    match request.header.opcode {
        opcode::RMDIR => session.share().remove_directory(request.header.node, name)?,
        _ => session.share().remove_file(request.header.node, name)?,
    }
    Ok(Answer::Reply)
}

pub fn rename(session: &Session, request: &mut Request<'_>) -> Result<Answer, Errno> {
    let to = request.arguments.u64()?;
    let mut flags = 0;
    if request.header.opcode == opcode::RENAME2 {
        flags = request.arguments.u32()?;
        request.arguments.skip(4)?;
    }
    let (old, new) = (name(request)?, name(request)?);
    session.share().rename((request.header.node, old), (to, new), flags)?;
    Ok(Answer::Reply)
}

pub fn read_link(
    session: &Session,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    reply.path(&session.share().read_link(request.header.node)?);
    Ok(Answer::Reply)
}

fn name<'r>(request: &mut Request<'r>) -> Result<Name<'r>, Errno> {
    Name::new(request.arguments.text()?)
}

fn creator(request: &Request<'_>, mode: u32) -> Creator {
    Creator { uid: request.header.uid, gid: request.header.gid, mode }
}

fn answer(session: &Session, reply: &mut Reply<'_>, entry: &Entry) -> Result<Answer, Errno> {
    reply.entry(entry, session.timeout());
    Ok(Answer::Reply)
}

fn answer_opened(
    session: &Session,
    reply: &mut Reply<'_>,
    (entry, handle): (Entry, u64),
) -> Result<Answer, Errno> {
    reply.entry(&entry, session.timeout());
    reply.opened(handle, session.file_flags());
    Ok(Answer::Reply)
}
