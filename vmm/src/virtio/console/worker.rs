//! The console's thread.

use std::io;
use std::ops::ControlFlow;

use vmm_sys_util::epoll::EventSet;

use super::Ends;
use super::input::Keyboard;
use super::output::Printer;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

const RECEIVE_NOTIFIED: u32 = 0;
const TRANSMIT_NOTIFIED: u32 = 1;
const INPUT_READABLE: u32 = 2;
const OUTPUT_ROOM: u32 = 3;

/// The state of the console's thread.
pub struct ConsoleQueues {
    keyboard: Keyboard,
    printer: Printer,
}

impl ConsoleQueues {
    pub fn new(receive: DeviceQueue, transmit: DeviceQueue, ends: Ends) -> Self {
        let keyboard = Keyboard::new(receive, ends.input);
        let printer = Printer::new(transmit, ends.output, ends.room);
        Self { keyboard, printer }
    }

    /// What outlives a reset.
    pub fn into_ends(self) -> Ends {
        let (output, room) = self.printer.into_parts();
        Ends { output, room, input: self.keyboard.into_source() }
    }

    fn work(&mut self, token: u32, sources: &EventSources) -> Result<(), BrokenQueue> {
        match token {
            TRANSMIT_NOTIFIED => {
                self.printer.queue().notified();
                serve(&mut self.printer, sources).map(drop)
            }
            OUTPUT_ROOM => serve(&mut self.printer, sources).map(drop),
            RECEIVE_NOTIFIED => {
                self.keyboard.queue().notified();
                self.keyboard.room(sources, INPUT_READABLE)
            }
            _ => self.keyboard.source_readable(sources, INPUT_READABLE),
        }
    }
}

impl EventHandler for ConsoleQueues {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.keyboard.queue().notify_fd(), RECEIVE_NOTIFIED)?;
        sources.watch_event(self.printer.queue().notify_fd(), TRANSMIT_NOTIFIED)?;
        sources.watch_event(self.printer.room_fd(), OUTPUT_ROOM)?;
        self.keyboard.register(sources, INPUT_READABLE)
    }

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        let received = self.keyboard.room(sources, INPUT_READABLE);
        unless_broken(received.and_then(|()| serve(&mut self.printer, sources)))
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        unless_broken(self.work(token, sources))
    }
}
