//! A back end whose other end a test holds.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use crate::backend::net::NetBackend;
use crate::virtio::testing::PATIENCE;

/// What was asked of the back end, and the host's end of its frames.
pub struct Host {
    pub socket: UnixDatagram,
    pub offloads: Mutex<Vec<u32>>,
    pub attached: Mutex<Vec<bool>>,
    refuse: Mutex<u32>,
}

impl Host {
    pub fn refuse_offloads(&self, flags: u32) {
        *self.refuse.lock().unwrap() = flags;
    }

    /// A frame to the guest: a header of zeroes, and `payload`.
    pub fn send(&self, payload: &[u8]) {
        let mut frame = vec![0; 12];
        frame.extend(payload);
        self.socket.send(&frame).unwrap();
    }

    /// The next frame from the guest, with its header.
    pub fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 1 << 17];
        let length = self.socket.recv(&mut frame).expect("the guest sent nothing");
        frame.truncate(length);
        frame
    }
}

/// Datagrams behave as frames do: whole or not at all, cut at the end of the buffers.
pub struct SocketBackend {
    socket: UnixDatagram,
    host: Arc<Host>,
}

pub fn socket_backend() -> (SocketBackend, Arc<Host>) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = Arc::new(Host {
        socket: theirs,
        offloads: Mutex::default(),
        attached: Mutex::default(),
        refuse: Mutex::default(),
    });
    (SocketBackend { socket: ours, host: Arc::clone(&host) }, host)
}

impl NetBackend for SocketBackend {
    fn send(&mut self, frame: &[IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: `IoSlice` has the layout of `iovec`, and the ranges are valid for the call.
        let sent = unsafe {
            libc::writev(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len() as i32)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn receive(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // SAFETY: as in `send`.
        let received = unsafe {
            libc::readv(self.socket.as_raw_fd(), buffers.as_mut_ptr().cast(), buffers.len() as i32)
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    fn set_offloads(&mut self, tun_flags: u32) -> io::Result<()> {
        if tun_flags & *self.host.refuse.lock().unwrap() != 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.host.offloads.lock().unwrap().push(tun_flags);
        Ok(())
    }

    fn set_attached(&mut self, attached: bool) -> io::Result<()> {
        self.host.attached.lock().unwrap().push(attached);
        Ok(())
    }

    fn event(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
