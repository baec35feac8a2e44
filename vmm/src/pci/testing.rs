//! Stand-ins for the hypervisor in unit tests.

use std::io;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::msi::{MsiMessage, MsiRouter, MsiVector};
use crate::irq::InterruptLine;

/// Remembers what its vectors were connected to and what they delivered.
#[derive(Default)]
pub struct FakeRouter {
    vectors: Mutex<Vec<Arc<FakeVector>>>,
    refuse: Arc<Mutex<bool>>,
}

/// Delivers synchronously, as far as the observer can tell.
pub struct FakeVector {
    event: EventFd,
    state: Mutex<(Option<MsiMessage>, Vec<MsiMessage>)>,
    refuse: Arc<Mutex<bool>>,
}

impl FakeRouter {
    /// Makes the hypervisor refuse all messages from now on.
    pub fn refuse(&self, refuse: bool) {
        *self.refuse.lock().unwrap() = refuse;
    }

    /// What vector `index` has delivered.
    pub fn delivered(&self, index: usize) -> Vec<MsiMessage> {
        let vector = Arc::clone(&self.vectors.lock().unwrap()[index]);
        vector.drain();
        vector.state.lock().unwrap().1.clone()
    }

    /// What vector `index` is connected to.
    pub fn connected(&self, index: usize) -> Option<MsiMessage> {
        self.vectors.lock().unwrap()[index].state.lock().unwrap().0
    }
}

impl FakeVector {
    /// KVM's part: turns what is in the eventfd into messages.
    fn drain(&self) {
        let mut state = self.state.lock().unwrap();
        if let Some(message) = state.0
            && self.event.read().is_ok()
        {
            state.1.push(message);
        }
    }
}

impl MsiRouter for FakeRouter {
    fn allocate(&self) -> io::Result<Arc<dyn MsiVector>> {
        let event = EventFd::new(libc::EFD_NONBLOCK)?;
        let state = Mutex::default();
        let vector = Arc::new(FakeVector { event, state, refuse: Arc::clone(&self.refuse) });
        self.vectors.lock().unwrap().push(Arc::clone(&vector));
        Ok(vector)
    }
}

impl MsiVector for FakeVector {
    fn connect(&self, message: Option<MsiMessage>) -> io::Result<()> {
        self.drain();
        let refused = message.is_some() && *self.refuse.lock().unwrap();
        self.state.lock().unwrap().0 = message.filter(|_| !refused);
        self.drain();
        if refused { Err(io::Error::from_raw_os_error(libc::EINVAL)) } else { Ok(()) }
    }

    fn event(&self) -> &EventFd {
        &self.event
    }
}

/// A wire that remembers its level.
#[derive(Default)]
pub struct FakeLine {
    /// Every change of level.
    pub levels: Mutex<Vec<bool>>,
}

impl FakeLine {
    /// The level now.
    pub fn is_asserted(&self) -> bool {
        self.levels.lock().unwrap().last() == Some(&true)
    }
}

impl InterruptLine for FakeLine {
    fn set(&self, asserted: bool) {
        let mut levels = self.levels.lock().unwrap();
        if levels.last() != Some(&asserted) {
            levels.push(asserted);
        }
    }
}
