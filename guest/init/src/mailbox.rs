//! The guest's end of the mailbox, [`isolab_protocol::mailbox`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use isolab_protocol::mailbox::{FROM_GUEST, FROM_HOST, MAGIC, SLOT};
use nix::libc;

use crate::Failure;

/// How long the disk may take to appear; those that the root file system is on are there.
const TIMEOUT: Duration = Duration::from_secs(30);
const SECTOR: usize = 512;
/// What O_DIRECT demands of memory, at the most.
const ALIGNMENT: usize = 4096;

pub struct Mailbox {
    /// Past the page cache, which would show what was there before.
    disk: File,
    buffer: Vec<u8>,
    /// The host has taken what was put into our slot.
    pub is_free: bool,
}

impl Mailbox {
    /// Finds the disk among `devices`: drivers that probe in parallel name them in any order.
    pub fn find(devices: &[String]) -> Result<Self, Failure> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(mailbox) = devices.iter().find_map(|device| Self::open(device).ok()) {
                return Ok(mailbox);
            }
            if Instant::now() > deadline {
                return Err(format!("no mailbox among {}", devices.join(" and ")));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn open(device: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let disk = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(device)?;
        let mut mailbox = Self { disk, buffer: vec![0; SLOT + ALIGNMENT], is_free: true };
        let (disk, buffer) = mailbox.parts(SECTOR);
        disk.read_exact_at(buffer, 0)?;
        match buffer.starts_with(&MAGIC) {
            true => Ok(mailbox),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The disk, and an aligned buffer of whole sectors for `length` bytes, at most a slot.
    fn parts(&mut self, length: usize) -> (&File, &mut [u8]) {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let end = start + length.min(SLOT).next_multiple_of(SECTOR);
        (&self.disk, &mut self.buffer[start..end])
    }

    /// Fills our slot with `bytes`, at most a slot of them.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let (disk, buffer) = self.parts(bytes.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        disk.write_all_at(buffer, FROM_GUEST).map_err(|e| format!("write to the mailbox: {e}"))?;
        self.is_free = false;
        Ok(())
    }

    /// What the host has put into its slot: `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&[u8], Failure> {
        if length > SLOT {
            return Err(format!("the host put {length} bytes into the mailbox"));
        }
        let (disk, buffer) = self.parts(length);
        disk.read_exact_at(buffer, FROM_HOST).map_err(|e| format!("read the mailbox: {e}"))?;
        Ok(&buffer[..length])
    }
}
