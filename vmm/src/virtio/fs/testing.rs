//! A guest for tests: sends FUSE requests through a device's queue.

use std::path::Path;
use std::rc::Rc;

use tempfile::TempDir;

use super::VirtioFs;
use super::protocol::{Header, opcode};
use crate::backend::share::{Budget, CachePolicy, ShareOptions};
use crate::virtio::VirtioDevice;
use crate::virtio::testing::{
    Buffer, Driver, Inbox, activation, interrupt, memory, readable, writable,
};

/// Where requests, content and answers are in the guest's memory.
const REQUEST: u64 = 0x1_0000;
const CONTENT: u64 = 0x10_0000;
const ANSWER: u64 = 0x4_0000;
const ROOM: u32 = 0x4_0000;
/// The same of a request that waits while others are made.
const LATER_REQUEST: u64 = 0x3_0000;
const LATER_ANSWER: u64 = 0x3_8000;
/// Length of an entry, behind which is what was opened.
pub const ENTRY: usize = 128;

/// An answer: an error number, or what is behind the header.
pub type Answer = Result<Vec<u8>, i32>;

/// Bytes of a request.
#[derive(Clone, Default)]
pub struct Words(pub Vec<u8>);

impl Words {
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn text(mut self, text: &str) -> Self {
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }
}

pub fn words() -> Words {
    Words::default()
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A device with a folder, and its guest.
pub struct Guest {
    pub device: VirtioFs,
    pub driver: Driver,
    pub inbox: Inbox,
    pub folder: Rc<TempDir>,
    _forgets: Driver,
    /// Answers that nobody has waited for yet: heads of chains, and bytes written.
    arrived: Vec<(u32, u32)>,
    pub uid: u32,
    pub gid: u32,
}

impl Guest {
    pub fn new() -> Self {
        Self::with(|_| {}, Budget::new(100))
    }

    /// With a folder below that one.
    pub fn on(place: &Path) -> Self {
        let folder = Rc::new(tempfile::tempdir_in(place).unwrap());
        Self::in_folder(folder, |_| {}, Budget::new(20_000))
    }

    /// Another one with the same folder.
    pub fn beside(other: &Self) -> Self {
        Self::in_folder(Rc::clone(&other.folder), |_| {}, Budget::new(100))
    }

    pub fn with(change: impl FnOnce(&mut ShareOptions), budget: Budget) -> Self {
        Self::in_folder(Rc::new(tempfile::tempdir().unwrap()), change, budget)
    }

    fn in_folder(
        folder: Rc<TempDir>,
        change: impl FnOnce(&mut ShareOptions),
        budget: Budget,
    ) -> Self {
        let mut options = ShareOptions::new(folder.path(), "test");
        change(&mut options);
        let memory = memory();
        let (forgets, driver) = (Driver::new(&memory, 0, 8), Driver::new(&memory, 0x8000, 64));
        let (interrupt, inbox) = interrupt();
        let mut device = VirtioFs::open(&options, budget).unwrap();
        let queues = vec![forgets.queue(0, 0), driver.queue(1, 0)];
        device.activate(activation(&memory, 0, queues, interrupt)).unwrap();
        let (arrived, uid, gid) = (Vec::new(), 0, 0);
        Self { device, driver, inbox, folder, _forgets: forgets, arrived, uid, gid }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, opcode: u32, node: u64, arguments: &Words) -> Answer {
        self.call_with(opcode, node, arguments, &[])
    }

    pub fn call_with(
        &mut self,
        opcode: u32,
        node: u64,
        arguments: &Words,
        content: &[u8],
    ) -> Answer {
        let length = Header::LENGTH + arguments.0.len() + content.len();
        let mut request = self.header(length, opcode, node);
        request.extend(&arguments.0);
        self.driver.write(CONTENT, content);
        let mut buffers = vec![self.place(&request)];
        if !content.is_empty() {
            buffers.push(readable(CONTENT, content.len() as u32));
        }
        buffers.push(writable(ANSWER, ROOM));
        self.send(&buffers)
    }

    pub fn header(&self, length: usize, opcode: u32, node: u64) -> Vec<u8> {
        let header = words().u32(length as u32).u32(opcode).u64(7).u64(node);
        header.u32(self.uid).u32(self.gid).u32(1).u32(0).0
    }

    /// Puts a request's bytes where a buffer may name them.
    pub fn place(&self, request: &[u8]) -> Buffer {
        self.driver.write(REQUEST, request);
        readable(REQUEST, request.len() as u32)
    }

    /// Sends a chain and reads the answer. An answer without a header is `Err(0)`.
    pub fn send(&mut self, buffers: &[Buffer]) -> Answer {
        self.driver.write(ANSWER, &[0; 16]);
        let head = self.driver.send(buffers);
        self.answer(head, ANSWER)
    }

    /// Sends a request whose answer [`Guest::later`] waits for.
    pub fn begin(&mut self, opcode: u32, node: u64, arguments: &Words) -> u16 {
        let mut request = self.header(Header::LENGTH + arguments.0.len(), opcode, node);
        request.extend(&arguments.0);
        self.driver.write(LATER_REQUEST, &request);
        let request = readable(LATER_REQUEST, request.len() as u32);
        self.driver.send(&[request, writable(LATER_ANSWER, 200)])
    }

    /// The answer of what was begun last.
    pub fn later(&mut self, head: u16) -> Answer {
        self.answer(head, LATER_ANSWER)
    }

    /// Whether a request has been answered, as far as this guest has heard.
    pub fn has_arrived(&mut self, head: u16) -> bool {
        let used = self.driver.used();
        self.arrived.extend(used);
        self.arrived.iter().any(|(arrived, _)| *arrived == u32::from(head))
    }

    fn answer(&mut self, head: u16, address: u64) -> Answer {
        let used = loop {
            let is_it = |(arrived, _): &(u32, u32)| *arrived == u32::from(head);
            if let Some(at) = self.arrived.iter().position(is_it) {
                break self.arrived.remove(at).1 as usize;
            }
            let used = self.driver.wait_used(&self.inbox, 1);
            self.arrived.extend(used);
        };
        if used < 16 {
            assert_eq!(used, 0);
            return Err(0);
        }
        let answer = self.driver.read(address, used);
        assert_eq!((u32_at(&answer, 0) as usize, u64_at(&answer, 8)), (used, 7));
        match -(u32_at(&answer, 4).cast_signed()) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(error),
        }
    }

    pub fn look_up(&mut self, node: u64, name: &str) -> Result<u64, i32> {
        self.call(opcode::LOOKUP, node, &words().text(name)).map(|entry| u64_at(&entry, 0))
    }

    /// Creates a file in the root; its number and handle.
    pub fn create(&mut self, name: &str, flags: i32) -> Result<(u64, u64), i32> {
        let arguments = words().u32(flags.cast_unsigned()).u32(0o100_644).u64(0).text(name);
        let made = self.call(opcode::CREATE, 1, &arguments)?;
        Ok((u64_at(&made, 0), u64_at(&made, ENTRY)))
    }

    pub fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let arguments = words().u32(flags.cast_unsigned()).u32(0);
        self.call(opcode::OPEN, node, &arguments).map(|opened| u64_at(&opened, 0))
    }

    pub fn write(&mut self, handle: u64, offset: u64, content: &[u8], flags: u32) -> Answer {
        let arguments = words().u64(handle).u64(offset).u32(content.len() as u32).u32(flags);
        self.call_with(opcode::WRITE, 1, &arguments.u64(0).u64(0), content)
    }

    pub fn read(&mut self, handle: u64, offset: u64, size: u32) -> Answer {
        let arguments = words().u64(handle).u64(offset).u32(size).u32(0).u64(0).u64(0);
        self.call(opcode::READ, 1, &arguments)
    }

    pub fn set(&mut self, node: u64, valid: u32, change: impl FnOnce(&mut [u8])) -> Answer {
        let mut arguments = vec![0; 88];
        arguments[..4].copy_from_slice(&valid.to_le_bytes());
        change(&mut arguments);
        self.call(opcode::SETATTR, node, &Words(arguments))
    }

    /// Starts anew with the cache policy's INIT.
    pub fn initialize(&mut self, minor: u32, flags: u64) -> Answer {
        let low = (flags & u64::from(u32::MAX)) as u32;
        let arguments = words().u32(7).u32(minor).u32(1 << 17).u32(low).u32((flags >> 32) as u32);
        let mut arguments = arguments.0;
        arguments.resize(64, 0);
        self.call(opcode::INIT, 0, &Words(arguments))
    }
}

/// With another cache policy.
pub fn cached(cache: CachePolicy) -> Guest {
    Guest::with(|options| options.cache = cache, Budget::new(100))
}
