//! The controller as the buses see it: ports that lead to channels, and the channels' threads.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::atapi::CdRom;
use super::channel::Channel;
use super::drive::{Drive, DriveKind};
use super::hard_disk::HardDisk;
use super::worker::Executor;
use crate::backend::disk::DiskEngine;
use crate::bus::BusDevice;
use crate::irq::IrqLine;
use crate::memory::GuestRam;
use crate::poison::unpoisoned;

/// What a drive is, as far as the guest can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// A hard disk.
    HardDisk {
        /// The guest's writes are aborted.
        read_only: bool,
    },
    /// An ATAPI CD-ROM with an ISO image in it.
    CdRom,
}

/// A drive to attach, and what is behind it.
pub struct DriveImage {
    /// Hard disk or CD-ROM.
    pub media: Media,
    /// Size of the image in bytes.
    pub bytes: u64,
    /// Shown by IDENTIFY; 20 printable ASCII characters at most.
    pub serial: String,
    /// Moves data between the image and guest memory.
    pub engine: Box<dyn DiskEngine>,
}

impl DriveImage {
    fn drive(&self) -> Drive {
        Drive::new(match self.media {
            Media::HardDisk { read_only } => {
                DriveKind::HardDisk(HardDisk::new(self.bytes, read_only, &self.serial))
            }
            Media::CdRom => DriveKind::CdRom(CdRom::new(self.bytes, &self.serial)),
        })
    }
}

/// How long a vCPU that polls for the end of BSY is held, while its interrupts wait.
const POLL_TIMEOUT: Duration = Duration::from_millis(1);

/// A channel with its thread's door bell.
struct Shared {
    channel: Mutex<Guarded>,
    work: Condvar,
    /// The thread has finished something.
    finished: Condvar,
}

struct Guarded {
    channel: Channel,
    /// The guest has looked at the status since the thread got its work.
    looked: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Guarded> {
        unpoisoned(self.channel.lock())
    }

    /// One access of the host, and the thread's wake-up if it left work.
    fn access<T>(&self, access: impl FnOnce(&mut Channel) -> T) -> T {
        let mut guarded = self.lock();
        let result = access(&mut guarded.channel);
        if guarded.channel.has_assignment() {
            guarded.looked = false;
            self.work.notify_one();
        }
        result
    }

    /// Reads a status register by `read`, once the thread is done if that is soon.
    ///
    /// Who polls has nothing else to do until BSY ends. Answering at once would cost an exit for
    /// each look and, where the host has one processor, keep the very thread from it that the guest
    /// waits for: firmware then gives up after some seconds. The first look is no poll: drivers that
    /// wait for the interrupt take one after every command, to be sure that it has arrived.
    fn poll_status(&self, read: impl FnOnce(&mut Channel) -> u8) -> u8 {
        let mut guarded = self.lock();
        if guarded.channel.thread_works() && std::mem::replace(&mut guarded.looked, true) {
            let waiting = |guarded: &mut Guarded| guarded.channel.thread_works();
            let waited = self.finished.wait_timeout_while(guarded, POLL_TIMEOUT, waiting);
            guarded = unpoisoned(waited).0;
        }
        read(&mut guarded.channel)
    }
}

/// Runs assignments until told to stop. The lock is never held while the disk works.
fn serve(shared: &Shared, mut executor: Executor) {
    let mut guarded = shared.lock();
    loop {
        if guarded.stop {
            return;
        }
        let Some(assignment) = guarded.channel.take_assignment() else {
            guarded = unpoisoned(shared.work.wait(guarded));
            continue;
        };
        drop(guarded);
        let outcome = executor.run(assignment);
        guarded = shared.lock();
        guarded.channel.finish(outcome);
        shared.finished.notify_all();
    }
}

/// The two channels and their threads, which end when this is dropped.
pub struct IdeController {
    channels: [Arc<Shared>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl IdeController {
    /// Attaches `drives` (primary master and slave, secondary master and slave) and starts a
    /// thread for each channel that has any. `lines` are ISA interrupts 14 and 15.
    ///
    /// # Errors
    /// The host has no memory or no thread left.
    pub fn new(
        memory: &GuestRam,
        drives: [[Option<DriveImage>; 2]; 2],
        lines: [IrqLine; 2],
    ) -> io::Result<Self> {
        let mut threads = Vec::new();
        let mut channels = Vec::new();
        for (number, (images, line)) in drives.into_iter().zip(lines).enumerate() {
            let attached = images.each_ref().map(|i| i.as_ref().map(DriveImage::drive));
            let channel = Channel::new(attached, line);
            let has_drives = channel.has_drives();
            let guarded = Guarded { channel, looked: false, stop: false };
            let shared = Arc::new(Shared {
                channel: Mutex::new(guarded),
                work: Condvar::new(),
                finished: Condvar::new(),
            });
            if has_drives {
                let engines = images.map(|i| i.map(|i| i.engine));
                let executor = Executor::new(memory.clone(), engines)?;
                let for_thread = Arc::clone(&shared);
                let thread = crate::threads::builder(format!("ide{number}"))
                    .spawn(move || serve(&for_thread, executor))?;
                threads.push(thread);
            }
            channels.push(shared);
        }
        let [primary, secondary] = <[Arc<Shared>; 2]>::try_from(channels)
            .map_err(|_| io::Error::other("an IDE controller has two channels"))?;
        Ok(Self { channels: [primary, secondary], threads })
    }

    /// Whether channel 0 or 1 has a drive; firmware and drivers skip a channel that is not
    /// enabled in the PCI configuration space.
    pub fn has_drives(&self, channel: usize) -> bool {
        self.channels[channel].lock().channel.has_drives()
    }

    /// The eight command block ports of channel 0 or 1.
    pub fn command_ports(&self, channel: usize) -> CommandPorts {
        CommandPorts(Arc::clone(&self.channels[channel]))
    }

    /// The control port of channel 0 or 1.
    pub fn control_port(&self, channel: usize) -> ControlPort {
        ControlPort(Arc::clone(&self.channels[channel]))
    }

    /// The bus master ports of both channels.
    pub fn bus_master_ports(&self) -> BusMasterPorts {
        BusMasterPorts(self.channels.each_ref().map(Arc::clone))
    }

    /// What a reset of the machine does.
    pub fn reset(&self) {
        for shared in &self.channels {
            shared.access(Channel::hard_reset);
        }
    }
}

impl Drop for IdeController {
    fn drop(&mut self) {
        for shared in &self.channels {
            shared.lock().stop = true;
            shared.work.notify_all();
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; there is nothing left to save here.
            let _ = thread.join();
        }
    }
}

/// Offset of the status register in the command block.
const STATUS: u64 = 7;

/// The command block of a channel.
pub struct CommandPorts(Arc<Shared>);

impl BusDevice for CommandPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (STATUS, [status]) = (offset, &mut *data) {
            *status = self.0.poll_status(|channel| channel.read_register(STATUS));
            return;
        }
        self.0.access(|channel| {
            if offset == 0 {
                return channel.read_data_once(data);
            }
            // Registers are bytes; a wider access reaches the neighbours, as on the ISA bus.
            for (byte, offset) in data.iter_mut().zip(offset..8) {
                *byte = channel.read_register(offset);
            }
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.access(|channel| {
            if offset == 0 {
                return channel.write_data(data);
            }
            for (byte, offset) in data.iter().zip(offset..8) {
                channel.write_register(offset, *byte);
            }
        });
    }

    fn read_repeated(&mut self, offset: u64, width: usize, data: &mut [u8]) {
        if offset == 0 {
            return self.0.access(|channel| channel.read_data(data));
        }
        for access in data.chunks_mut(width.max(1)) {
            self.read(offset, access);
        }
    }

    fn write_repeated(&mut self, offset: u64, width: usize, data: &[u8]) {
        if offset == 0 {
            return self.0.access(|channel| channel.write_data(data));
        }
        for access in data.chunks(width.max(1)) {
            self.write(offset, access);
        }
    }
}

/// Device control (written) and alternate status (read) of a channel.
pub struct ControlPort(Arc<Shared>);

impl BusDevice for ControlPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.0.poll_status(|channel| channel.read_alternate_status());
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let Some(&byte) = data.first() {
            self.0.access(|channel| channel.write_control(byte));
        }
    }
}

/// The bus masters of both channels, 8 ports each.
pub struct BusMasterPorts([Arc<Shared>; 2]);

impl BusDevice for BusMasterPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (byte, offset) in data.iter_mut().zip(offset..super::BUS_MASTER_LENGTH) {
            let shared = &self.0[(offset / 8) as usize];
            *byte = shared.access(|channel| channel.read_busmaster(offset % 8));
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (byte, offset) in data.iter().zip(offset..super::BUS_MASTER_LENGTH) {
            let shared = &self.0[(offset / 8) as usize];
            shared.access(|channel| channel.write_busmaster(offset % 8, *byte));
        }
    }
}
