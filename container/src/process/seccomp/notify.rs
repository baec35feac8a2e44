//! Who answers the calls that a filter does not decide (config-linux.md, "Seccomp", `listenerPath`): the descriptor of
//! the notifications goes to a socket, with the state of the process that it is about.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::{ContainerProcessState, LinuxSeccomp, SECCOMP_FD_NAME, State};

use crate::error::{Error, Result};

/// Where the notifications of a filter go.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    metadata: Option<String>,
}

impl Listener {
    /// None if the configuration names none.
    pub(super) fn from_oci(seccomp: &LinuxSeccomp) -> Result<Option<Self>> {
        let path = seccomp.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
        let metadata = seccomp.listener_metadata().clone().filter(|text| !text.is_empty());
        if path.is_none() && metadata.is_some() {
            let problem = "is for linux.seccomp.listenerPath, which is not set";
            return Err(Error::invalid("linux.seccomp.listenerMetadata", problem));
        }
        Ok(path.map(|path| Listener { path, metadata }))
    }

    /// Hands the descriptor out, over a connection of its own.
    ///
    /// # Errors
    /// Nobody listens there, or hangs up before all is sent.
    pub(crate) fn send(&self, notifications: &OwnedFd, pid: i32, state: &State) -> Result<()> {
        let mut process = ContainerProcessState::default();
        process
            .set_version(state.version().clone())
            .set_fds(vec![SECCOMP_FD_NAME.to_owned()])
            .set_pid(pid)
            .set_metadata(self.metadata.clone())
            .set_state(state.clone());
        self.send_all(notifications, process).map_err(|source| {
            let path = self.path.display();
            Error::host(
                format!("send the seccomp notifications to {path} (linux.seccomp.listenerPath)"),
                source,
            )
        })
    }

    fn send_all(
        &self,
        notifications: &OwnedFd,
        process: ContainerProcessState,
    ) -> std::io::Result<()> {
        let text = serde_json::to_vec(&process)?;
        let stream = UnixStream::connect(&self.path)?;
        let descriptors = [notifications.as_raw_fd()];
        let mut sent = 0;
        while sent < text.len() {
            // The descriptor goes with the first byte.
            let rights = [ControlMessage::ScmRights(&descriptors)];
            let rights = if sent == 0 { &rights[..] } else { &[] };
            let part = [IoSlice::new(&text[sent..])];
            match sendmsg::<()>(stream.as_raw_fd(), &part, rights, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(count) => sent += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
