//! Each request to what does it.

use nix::errno::Errno;

use super::operations::{attributes, content, directories, locks, names, start, xattrs};
use super::protocol::{Reply, opcode};
use super::session::{Answer, Request, Session};

/// Does what a request asks for.
///
/// # Errors
/// What the guest is to be told.
pub fn serve(
    session: &Session,
    mut request: Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Errno> {
    let request = &mut request;
    match request.header.opcode {
        opcode::INIT => start::initialize(session, request, reply),
        opcode::DESTROY => start::end(session),
        // The answer of what was interrupted is on its way. For a lock that is waited for it is not, but Linux's driver
        // sends none for that.
        opcode::INTERRUPT => Ok(Answer::Nothing),
        opcode::FORGET => names::forget(session, request),
        opcode::BATCH_FORGET => names::forget_several(session, request),
        opcode::LOOKUP => names::look_up(session, request, reply),
        opcode::CREATE => names::create(session, request, reply),
        opcode::TMPFILE => names::create_unnamed(session, request, reply),
        opcode::MKNOD => names::make_node(session, request, reply),
        opcode::MKDIR => names::make_directory(session, request, reply),
        opcode::SYMLINK => names::make_link(session, request, reply),
        opcode::LINK => names::link(session, request, reply),
        opcode::UNLINK | opcode::RMDIR => names::remove(session, request),
        opcode::RENAME | opcode::RENAME2 => names::rename(session, request),
        opcode::READLINK => names::read_link(session, request, reply),
        opcode::GETATTR => attributes::get(session, request, reply),
        opcode::SETATTR => attributes::change(session, request, reply),
        opcode::STATFS => attributes::file_system(session, request, reply),
        opcode::OPEN => content::open(session, request, reply),
        opcode::READ => content::read(session, request),
        opcode::WRITE => content::write(session, request, reply),
        opcode::FLUSH => content::flush(session, request),
        opcode::FSYNC => content::synchronize(session, request),
        opcode::SYNCFS => content::synchronize_all(session, request),
        opcode::RELEASE | opcode::RELEASEDIR => content::release(session, request),
        opcode::LSEEK => content::seek(session, request, reply),
        opcode::FALLOCATE => content::allocate(session, request),
        opcode::COPY_FILE_RANGE => content::copy(session, request, reply),
        opcode::OPENDIR => directories::open(session, request, reply),
        opcode::READDIR | opcode::READDIRPLUS => directories::read(session, request, reply),
        opcode::FSYNCDIR => directories::synchronize(session, request),
        opcode::GETLK => locks::obstacle(session, request, reply),
        opcode::SETLK => locks::lock(session, request),
        opcode::SETLKW => locks::lock_or_wait(session, request),
        opcode::GETXATTR => xattrs::get(session, request, reply),
        opcode::LISTXATTR => xattrs::list(session, request, reply),
        opcode::SETXATTR => xattrs::set(session, request),
        opcode::REMOVEXATTR => xattrs::remove(session, request),
        // None of them has a meaning that host and guest share.
        opcode::IOCTL => Err(Errno::ENOTTY),
        _ => Err(Errno::ENOSYS),
    }
}
