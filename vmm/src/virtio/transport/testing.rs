//! A device and a driver's side that remember what happened, for unit tests.

use std::io;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::handshake::Signals;
use super::notify::{NotifyAddress, NotifyRegistrar};
use crate::irq::VirtioInterrupt;
use crate::memory::GuestRam;
use crate::virtio::{ActivateError, Activation, VirtioDevice};

/// 64 KiB.
pub fn ram() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
}

#[derive(Default)]
struct Log {
    activated: Vec<(u64, Vec<u16>)>,
    resets: usize,
    fail: bool,
    interrupt: Option<Arc<dyn VirtioInterrupt>>,
}

/// Sees everything.
#[derive(Default)]
pub struct Recorder {
    log: Mutex<Log>,
    signals: Mutex<Option<Arc<Signals>>>,
}

impl Recorder {
    pub fn watch(&self, signals: Arc<Signals>) {
        *self.signals.lock().unwrap() = Some(signals);
    }
    pub fn activated(&self) -> Vec<(u64, Vec<u16>)> {
        self.log.lock().unwrap().activated.clone()
    }
    pub fn resets(&self) -> usize {
        self.log.lock().unwrap().resets
    }
    pub fn fail_activation(&self) {
        self.log.lock().unwrap().fail = true;
    }
    /// What the device was given at its last activation.
    pub fn interrupt(&self) -> Arc<dyn VirtioInterrupt> {
        self.log.lock().unwrap().interrupt.clone().unwrap()
    }
}

impl VirtioInterrupt for Recorder {
    fn used_buffers(&self, _queue: u16) {}
    fn configuration_changed(&self) {}
    fn device_needs_reset(&self) {
        if let Some(signals) = &*self.signals.lock().unwrap() {
            signals.set_needs_reset();
        }
    }
}

/// A network device by its number: feature 0, two queues, four bytes of configuration.
pub struct FakeDevice {
    recorder: Arc<Recorder>,
    sizes: Vec<u16>,
    config: [u8; 4],
}

impl FakeDevice {
    pub fn new() -> (Self, Arc<Recorder>) {
        Self::with_queues(vec![16, 16])
    }

    pub fn with_queues(sizes: Vec<u16>) -> (Self, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        (Self { recorder: recorder.clone(), sizes, config: [1, 2, 3, 4] }, recorder)
    }
}

impl VirtioDevice for FakeDevice {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn device_type(&self) -> u32 {
        1
    }
    fn queue_sizes(&self) -> Vec<u16> {
        self.sizes.clone()
    }
    fn device_features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | 1
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.config.iter().skip(offset as usize)) {
            *to = *from;
        }
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        for (to, from) in self.config.iter_mut().skip(offset as usize).zip(data) {
            *to = *from;
        }
    }
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let mut log = self.recorder.log.lock().unwrap();
        if log.fail {
            return Err(ActivateError::MissingQueue { device: "fake", queue: 0 });
        }
        let queues = activation.queues.iter().map(|q| q.index).collect();
        log.activated.push((activation.features, queues));
        log.interrupt = Some(activation.interrupt);
        Ok(())
    }
    fn reset(&mut self) {
        self.recorder.log.lock().unwrap().resets += 1;
    }
}

/// Remembers registrations.
#[derive(Default)]
pub struct FakeRegistrar {
    pub registered: Mutex<Vec<NotifyAddress>>,
}

impl NotifyRegistrar for FakeRegistrar {
    fn register(&self, _event: &EventFd, address: NotifyAddress) -> io::Result<()> {
        self.registered.lock().unwrap().push(address);
        Ok(())
    }
    fn unregister(&self, _event: &EventFd, address: NotifyAddress) -> io::Result<()> {
        let mut registered = self.registered.lock().unwrap();
        let at = registered.iter().position(|r| *r == address).ok_or(io::ErrorKind::NotFound)?;
        registered.remove(at);
        Ok(())
    }
}
