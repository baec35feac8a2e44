//! The host's end of the mailbox, [`isolab_protocol::mailbox`]: the disk is a file of ours.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use isolab_protocol::mailbox::{FROM_GUEST, FROM_HOST, MAGIC, SIZE, SLOT};

/// A mailbox. The file is the disk of the machine.
#[derive(Debug)]
pub struct Mailbox {
    file: File,
    /// The guest has taken what was put into our slot.
    pub(super) is_free: bool,
}

impl Mailbox {
    /// Makes a mailbox of an empty file.
    ///
    /// # Errors
    /// The host has no room for it.
    pub fn new(file: File) -> io::Result<Self> {
        file.set_len(SIZE)?;
        file.write_all_at(&MAGIC, 0)?;
        Ok(Self { file, is_free: true })
    }

    /// Puts `bytes` into our slot, at most a slot of them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, FROM_HOST)?;
        self.is_free = false;
        Ok(())
    }

    /// A copy of what the guest says it has put into its slot; it may change it meanwhile.
    ///
    /// # Errors
    /// In one line, that there cannot be so much.
    pub(super) fn take(&self, length: u32) -> Result<Vec<u8>, String> {
        let length = length as usize;
        if length > SLOT {
            return Err(format!("it has put {length} bytes into a mailbox of {SLOT}"));
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, FROM_GUEST);
        read.map_err(|error| format!("its mailbox cannot be read: {error}"))?;
        Ok(bytes)
    }
}
