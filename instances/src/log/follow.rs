//! Waiting until something happens in an instance's folder.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// How long at most, in milliseconds: a killed supervisor changes nothing in the folder.
const TIMEOUT: u16 = 1000;

pub(super) struct Watch(Inotify);

impl Watch {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // The lock is closed with its last owner, and so by a kill.
        let events = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE_SELF;
        watch.add_watch(folder, events)?;
        Ok(Self(watch))
    }

    /// Returns when something has happened since it last did, and after a while in any case.
    pub(super) fn wait(&self) -> io::Result<()> {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(TIMEOUT)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        match self.0.read_events() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
