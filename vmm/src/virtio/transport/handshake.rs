//! From reset to DRIVER_OK and back: device status, feature negotiation and queue set-up
//! (virtio 1.2, chapters 2.1, 2.2 and 3.1), the same for every transport.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::TransportError;
use crate::irq::VirtioInterrupt;
use crate::memory::GuestRam;
use crate::virtio::log::DeviceLog;
use crate::virtio::{Activation, ActiveQueue, VirtioDevice};

/// Device status bits (virtio 1.2, 2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Both sides agree on the features.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
    /// What a driver may set.
    pub const DRIVER_BITS: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// The most queues of a device: the PCI transport has one page of notification addresses, and
/// MSI-X vectors are counted in the same page size.
pub const MAX_QUEUES: usize = 255;

/// What device threads tell the transport without taking its lock.
#[derive(Default)]
pub struct Signals {
    needs_reset: AtomicBool,
    generation: AtomicU32,
}

impl Signals {
    /// The device cannot go on until the driver resets it.
    pub fn set_needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
    }

    /// The device configuration is not what it was.
    pub fn configuration_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Lets a driver notice that the configuration changed while it read it
    /// (virtio 1.2, 2.5.1).
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }
}

/// A queue as the driver describes it, before it is enabled.
pub struct QueueSetup {
    /// The largest size, a power of two.
    pub max_size: u16,
    /// The driver's choice, checked when the queue is enabled.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring, the driver's area.
    pub available: u64,
    /// Guest-physical address of the used ring, the device's area.
    pub used: u64,
    /// The driver is done with this queue.
    pub enabled: bool,
    /// Written for every notification.
    pub notify: EventFd,
}

impl QueueSetup {
    /// The queue, if sizes, alignment and addresses are what virtio 1.2, 2.7 demands.
    fn build(&self, memory: &GuestRam, event_idx: bool) -> Option<Queue> {
        let mut queue = Queue::new(self.max_size).ok()?;
        queue.try_set_size(self.size).ok()?;
        queue.try_set_desc_table_address(vm_memory::GuestAddress(self.descriptors)).ok()?;
        queue.try_set_avail_ring_address(vm_memory::GuestAddress(self.available)).ok()?;
        queue.try_set_used_ring_address(vm_memory::GuestAddress(self.used)).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        queue.is_valid(memory).then_some(queue)
    }
}

/// What a write to the status register led to, for the transport to act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing that concerns the transport.
    None,
    /// DRIVER_OK was set, and the device serves its queues.
    Activated,
    /// The device is as after power-on.
    Reset,
}

/// The device and how far its driver has come.
pub struct Handshake {
    device: Box<dyn VirtioDevice>,
    memory: GuestRam,
    interrupt: Arc<dyn VirtioInterrupt>,
    signals: Arc<Signals>,
    status: u8,
    offered: u64,
    accepted: u64,
    queues: Vec<QueueSetup>,
    log: Arc<DeviceLog>,
    /// Which half of the offered features is shown.
    pub device_feature_select: u32,
    /// Which half of the accepted features is written.
    pub driver_feature_select: u32,
    /// Which queue the queue registers speak of.
    pub queue_select: u16,
}

impl Handshake {
    /// A device after power-on. `interrupt` reports to `signals`.
    ///
    /// # Errors
    /// [`TransportError`]: impossible queues, or the host has no file descriptor left.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestRam,
        interrupt: Arc<dyn VirtioInterrupt>,
        signals: Arc<Signals>,
    ) -> Result<Self, TransportError> {
        let sizes = device.queue_sizes();
        check_queues(&*device, &sizes)?;
        let setup = |max_size: u16| {
            let notify = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
            let (descriptors, available, used) = (0, 0, 0);
            let size = max_size;
            Ok(QueueSetup { max_size, size, descriptors, available, used, enabled: false, notify })
        };
        let queues = sizes.into_iter().map(setup).collect::<io::Result<_>>().map_err(|source| {
            TransportError::Host { device: device.name(), what: "an eventfd", source }
        })?;
        let offered = device.device_features();
        let log = Arc::new(DeviceLog::new(device.name()));
        Ok(Self {
            device,
            memory,
            interrupt,
            signals,
            status: 0,
            offered,
            accepted: 0,
            queues,
            log,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
        })
    }

    /// The device behind the transport.
    pub fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    /// How the device reaches the driver.
    pub fn interrupt(&self) -> &Arc<dyn VirtioInterrupt> {
        &self.interrupt
    }

    /// The device status field (2.1).
    pub fn status(&self) -> u8 {
        let broken = self.signals.needs_reset.load(Ordering::Acquire);
        self.status | if broken { status::NEEDS_RESET } else { 0 }
    }

    /// Whether the device works: between DRIVER_OK and the next reset.
    pub fn is_active(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    /// The half of the offered features that the driver selected.
    pub fn device_features(&self) -> u32 {
        half(self.offered, self.device_feature_select)
    }

    /// The half of the accepted features that the driver selected.
    pub fn driver_features(&self) -> u32 {
        half(self.accepted, self.driver_feature_select)
    }

    /// The driver accepts features; too late once FEATURES_OK is set (3.1.1).
    pub fn accept_features(&mut self, value: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        let value = u64::from(value);
        match self.driver_feature_select {
            0 => self.accepted = self.accepted & !0xFFFF_FFFF | value,
            1 => self.accepted = self.accepted & 0xFFFF_FFFF | value << 32,
            // Features beyond bit 63 are not offered; accepting any must fail the negotiation.
            _ if value != 0 => self.accepted |= !self.offered,
            _ => {}
        }
    }

    /// The selected queue, if it exists.
    pub fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// What the driver has set up of each queue, by number.
    pub fn queues(&self) -> &[QueueSetup] {
        &self.queues
    }

    /// The selected queue, if it exists and may still be described: not once it is enabled or
    /// the device works (2.7 and 4.1.4.3.2).
    pub fn queue_mut(&mut self) -> Option<&mut QueueSetup> {
        let active = self.is_active();
        let queue = self.queues.get_mut(usize::from(self.queue_select))?;
        (!queue.enabled && !active).then_some(queue)
    }

    /// The driver enables the selected queue. A queue that cannot be (size, alignment, addresses
    /// outside RAM) stays disabled and the device needs a reset.
    pub fn enable_queue(&mut self) {
        let memory = self.memory.clone();
        let Some(queue) = self.queue_mut() else { return };
        queue.enabled = queue.build(&memory, false).is_some();
        if !queue.enabled {
            self.interrupt.device_needs_reset();
        }
    }

    /// The driver withdraws the selected queue before the device works (MMIO, 4.2.2.2).
    pub fn disable_queue(&mut self) {
        let active = self.is_active();
        if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)).filter(|_| !active)
        {
            queue.enabled = false;
        }
    }

    /// A notification that came as an access to a register.
    pub fn notify(&self, queue: u16) {
        if let Some(queue) = self.queues.get(usize::from(queue)) {
            // Fails only when the counter is full: then the device is notified already.
            let _ = queue.notify.write(1);
        }
    }

    /// Reads the device configuration; zeroes beyond its end.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.device.read_config(offset, data);
    }

    /// Writes the device configuration.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    /// The driver writes the status register (2.1.1, 3.1.1).
    pub fn write_status(&mut self, value: u8) -> Transition {
        if value == 0 {
            self.reset();
            return Transition::Reset;
        }
        // Bits are only ever added; what would take one away is ignored.
        let mut added = value & status::DRIVER_BITS & !self.status;
        let acceptable =
            self.accepted & !self.offered == 0 && self.accepted & 1 << VIRTIO_F_VERSION_1 != 0;
        if !acceptable {
            added &= !status::FEATURES_OK;
        }
        let start = added & status::DRIVER_OK != 0;
        self.status |= added & !status::DRIVER_OK;
        if start { self.start() } else { Transition::None }
    }

    /// DRIVER_OK: hands the queues to the device.
    fn start(&mut self) -> Transition {
        let wanted = status::FEATURES_OK;
        let unwanted = status::FAILED | status::NEEDS_RESET;
        if self.status() & (wanted | unwanted) != wanted {
            self.interrupt.device_needs_reset();
            return Transition::None;
        }
        self.status |= status::DRIVER_OK;
        // Out of file descriptors ends like any other device that cannot start: it needs a reset.
        let started = self
            .activation()
            .and_then(|activation| self.device.activate(activation).map_err(io::Error::other));
        match started {
            Ok(()) => Transition::Activated,
            Err(error) => {
                self.log.failed("the device cannot start", &error);
                self.interrupt.device_needs_reset();
                Transition::None
            }
        }
    }

    fn activation(&self) -> io::Result<Activation> {
        let event_idx = self.accepted & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let mut queues = Vec::new();
        for (index, setup) in (0..).zip(&self.queues) {
            if !setup.enabled {
                continue;
            }
            let queue = setup
                .build(&self.memory, event_idx)
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            queues.push(ActiveQueue { index, queue, notify: setup.notify.try_clone()? });
        }
        Ok(Activation {
            memory: self.memory.clone(),
            features: self.accepted,
            queues,
            interrupt: Arc::clone(&self.interrupt),
            log: Arc::clone(&self.log),
        })
    }

    fn reset(&mut self) {
        self.device.reset();
        self.status = 0;
        self.accepted = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
        self.signals.needs_reset.store(false, Ordering::Release);
        for queue in &mut self.queues {
            queue.size = queue.max_size;
            (queue.descriptors, queue.available, queue.used) = (0, 0, 0);
            queue.enabled = false;
            // A notification for the driver that is gone.
            let _ = queue.notify.read();
        }
    }
}

fn check_queues(device: &dyn VirtioDevice, sizes: &[u16]) -> Result<(), TransportError> {
    let bad = sizes.iter().find(|size| Queue::new(**size).is_err());
    if bad.is_none() && sizes.len() <= MAX_QUEUES {
        return Ok(());
    }
    let size = bad.or(sizes.iter().max()).copied().unwrap_or_default();
    Err(TransportError::Queues { device: device.name(), queues: sizes.len(), size })
}

fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::status::*;
    use super::*;
    use crate::virtio::transport::testing::{FakeDevice, Recorder, ram};

    fn handshake() -> (Handshake, Arc<Recorder>) {
        let (device, recorder) = FakeDevice::new();
        let signals = Arc::new(Signals::default());
        recorder.watch(Arc::clone(&signals));
        let handshake = Handshake::new(Box::new(device), ram(), recorder.clone(), signals).unwrap();
        (handshake, recorder)
    }

    fn accept(handshake: &mut Handshake, features: u64) {
        handshake.driver_feature_select = 0;
        handshake.accept_features(features as u32);
        handshake.driver_feature_select = 1;
        handshake.accept_features((features >> 32) as u32);
    }

    const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

    fn negotiate(handshake: &mut Handshake) {
        handshake.write_status(ACKNOWLEDGE);
        handshake.write_status(ACKNOWLEDGE | DRIVER);
        accept(handshake, VERSION_1 | 1);
        handshake.write_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(handshake.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    fn describe_queue(handshake: &mut Handshake, index: u16) {
        handshake.queue_select = index;
        let queue = handshake.queue_mut().unwrap();
        let base = 0x1000 * u64::from(index);
        (queue.size, queue.descriptors, queue.available, queue.used) =
            (8, base + 0x1000, base + 0x1400, base + 0x1800);
        handshake.enable_queue();
    }

    #[test]
    fn the_proper_order_starts_the_device_with_the_enabled_queues() {
        let (mut h, recorder) = handshake();
        negotiate(&mut h);
        describe_queue(&mut h, 1);
        assert!(h.queue().unwrap().enabled);
        assert_eq!(h.write_status(0xF), Transition::Activated);
        assert_eq!(h.status(), 0xF);
        assert_eq!(recorder.activated(), [(VERSION_1 | 1, vec![1])]);
        h.notify(1);
        h.notify(2);
        assert_eq!(h.queues()[1].notify.read().unwrap(), 1);
    }

    #[test]
    fn features_that_were_not_offered_or_no_version_1_fail_the_negotiation() {
        for features in [0, 1, VERSION_1 | 2, VERSION_1 | 1 << 63] {
            let (mut h, _) = handshake();
            accept(&mut h, features);
            h.write_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
            assert_eq!(h.status(), ACKNOWLEDGE | DRIVER, "{features:#x}");
        }
        let (mut h, _) = handshake();
        accept(&mut h, VERSION_1);
        h.driver_feature_select = 2;
        h.accept_features(1);
        h.write_status(FEATURES_OK);
        assert_eq!(h.status(), 0);
    }

    #[test]
    fn features_are_shown_in_halves_and_fixed_by_features_ok() {
        let (mut h, _) = handshake();
        assert_eq!(h.device_features(), 1);
        h.device_feature_select = 1;
        assert_eq!(h.device_features(), 1);
        h.device_feature_select = 2;
        assert_eq!(h.device_features(), 0);
        negotiate(&mut h);
        accept(&mut h, VERSION_1);
        h.driver_feature_select = 0;
        assert_eq!(h.driver_features(), 1);
    }

    #[test]
    fn queues_that_cannot_be_are_not_enabled() {
        type Spoil = fn(&mut QueueSetup);
        let spoilers: [Spoil; 8] = [
            |q| q.size = 0,
            |q| q.size = 7,
            |q| q.size = 32,
            |q| q.descriptors = 0x1008,
            |q| q.available = 0x1401,
            |q| q.used = 0x1802,
            |q| q.descriptors = 0xFFF0,
            |q| q.used = !3,
        ];
        for spoil in spoilers {
            let (mut h, recorder) = handshake();
            negotiate(&mut h);
            let queue = h.queue_mut().unwrap();
            (queue.size, queue.descriptors, queue.available, queue.used) =
                (8, 0x1000, 0x1400, 0x1800);
            spoil(queue);
            h.enable_queue();
            assert!(!h.queue().unwrap().enabled);
            assert_eq!(h.status() & NEEDS_RESET, NEEDS_RESET);
            assert_eq!(h.write_status(0xF), Transition::None);
            assert!(!h.is_active() && recorder.activated().is_empty());
            // A reset makes it usable again.
            assert_eq!(h.write_status(0), Transition::Reset);
            assert_eq!(h.status(), 0);
            negotiate(&mut h);
            describe_queue(&mut h, 0);
            assert_eq!(h.write_status(0xF), Transition::Activated);
        }
    }

    #[test]
    fn driver_ok_needs_features_ok() {
        let (mut h, recorder) = handshake();
        assert_eq!(h.write_status(ACKNOWLEDGE | DRIVER | DRIVER_OK), Transition::None);
        assert_eq!(h.status(), ACKNOWLEDGE | DRIVER | NEEDS_RESET);
        assert!(recorder.activated().is_empty());
    }

    #[test]
    fn a_failed_driver_does_not_start_the_device() {
        let (mut h, recorder) = handshake();
        negotiate(&mut h);
        h.write_status(FAILED);
        h.write_status(DRIVER_OK);
        assert!(recorder.activated().is_empty());
    }

    #[test]
    fn nothing_changes_behind_a_working_device() {
        let (mut h, recorder) = handshake();
        negotiate(&mut h);
        describe_queue(&mut h, 0);
        h.write_status(0xF);
        assert!(h.queue_mut().is_none());
        h.queue_select = 1;
        assert!(h.queue_mut().is_none());
        h.enable_queue();
        h.queue_select = 0;
        h.disable_queue();
        assert!(h.queue().unwrap().enabled && !h.queues()[1].enabled);
        h.write_status(ACKNOWLEDGE);
        assert_eq!(h.status(), 0xF);
        h.write_status(0xF);
        assert_eq!(recorder.activated().len(), 1);
        h.queue_select = 9;
        assert!(h.queue().is_none() && h.queue_mut().is_none());
        h.enable_queue();
    }

    #[test]
    fn reset_stops_the_device_and_forgets_everything() {
        let (mut h, recorder) = handshake();
        negotiate(&mut h);
        describe_queue(&mut h, 0);
        h.write_status(0xF);
        h.notify(0);
        h.write_status(0);
        assert_eq!(recorder.resets(), 1);
        assert_eq!((h.status(), h.driver_features()), (0, 0));
        let queue = h.queue().unwrap();
        assert_eq!((queue.size, queue.descriptors, queue.enabled), (16, 0, false));
        assert!(queue.notify.read().is_err());
    }

    #[test]
    fn a_device_that_cannot_start_needs_a_reset() {
        let (mut h, recorder) = handshake();
        recorder.fail_activation();
        negotiate(&mut h);
        let lines = crate::log_limit::testing::messages(|| {
            assert_eq!(h.write_status(0xF), Transition::None);
        });
        assert_eq!(h.status(), 0xF | NEEDS_RESET);
        assert!(lines.len() == 1 && lines[0].contains("did not enable queue 0"), "{lines:?}");
    }

    #[test]
    fn impossible_queues_are_refused() {
        for sizes in [vec![0], vec![3], vec![16; 256]] {
            let (device, recorder) = FakeDevice::with_queues(sizes);
            let result = Handshake::new(Box::new(device), ram(), recorder, Arc::default());
            assert!(matches!(result, Err(TransportError::Queues { .. })));
        }
    }
}
