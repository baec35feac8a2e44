//! A back end whose other end a test holds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use crate::backend::net::NetBackend;
use crate::backend::vectors::{Gather, Scatter};
use crate::virtio::testing::TIMEOUT;

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
    theirs.set_read_timeout(Some(TIMEOUT)).unwrap();
    let host = Arc::new(Host {
        socket: theirs,
        offloads: Mutex::default(),
        attached: Mutex::default(),
        refuse: Mutex::default(),
    });
    (SocketBackend { socket: ours, host: Arc::clone(&host) }, host)
}

impl NetBackend for SocketBackend {
    fn send(&mut self, frame: &Gather<'_>) -> io::Result<usize> {
        frame.write_to(self.socket.as_fd())
    }

    fn receive(&mut self, buffers: &mut Scatter<'_>) -> io::Result<usize> {
        buffers.read_from(self.socket.as_fd())
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

    fn event(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
