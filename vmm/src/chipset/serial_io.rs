//! The serial ports' host side: a thread that feeds input to the guest no faster than the guest
//! reads it; output has threads of its own ([`crate::backend::output`]).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::eventfd::EventFd;

use super::uart::Uart;
use crate::backend::output::Output;
use crate::backend::serial_port::SerialPort;
use crate::control::Control;
use crate::irq::IrqLine;
use crate::poison::unpoisoned;

struct Port {
    uart: Arc<Mutex<Uart>>,
    /// None without input, or at its end.
    input: Option<File>,
    /// Read from the host, not yet taken by the guest. At most one FIFO's worth.
    pending: Vec<u8>,
}

impl Port {
    fn uart(&self) -> MutexGuard<'_, Uart> {
        unpoisoned(self.uart.lock())
    }

    /// Gives the guest what has been read but did not fit.
    fn deliver(&mut self) {
        if !self.pending.is_empty() {
            let taken = self.uart().receive(&self.pending);
            self.pending.drain(..taken);
        }
    }

    fn wants_input(&self) -> bool {
        self.input.is_some() && self.pending.is_empty() && self.uart().room() > 0
    }

    /// Reads as much as the guest's FIFO has room for, so that what it cannot take yet stays
    /// with the sender.
    fn read(&mut self) {
        let room = self.uart().room();
        let Some(input) = &mut self.input else { return };
        let mut bytes = vec![0; room];
        match input.read(&mut bytes) {
            Ok(0) => self.input = None,
            Ok(length) => {
                bytes.truncate(length);
                self.pending = bytes;
                self.deliver();
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => self.input = None,
        }
    }
}

/// The host's ends of all serial ports.
pub struct SerialIo {
    ports: Vec<Port>,
    outputs: Vec<Output>,
    input_drained: EventFd,
}

impl SerialIo {
    /// No ports yet.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let input_drained = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self { ports: Vec::new(), outputs: Vec::new(), input_drained })
    }

    /// Makes a serial port of `port` and serves it; `name` is its output's thread's.
    ///
    /// # Errors
    /// The host is out of file descriptors or threads.
    pub fn add(
        &mut self,
        name: &str,
        port: SerialPort,
        line: IrqLine,
    ) -> io::Result<Arc<Mutex<Uart>>> {
        let output = Output::new(name, port.output, port.gather)?;
        self.outputs.push(output.clone());
        let uart = Uart::new(output, line, self.input_drained.try_clone()?);
        let input = port.input.map(|fd: OwnedFd| File::from(fd));
        self.ports.push(Port { uart: Arc::clone(&uart), input, pending: Vec::new() });
        Ok(uart)
    }

    /// What ends [`SerialIo::serve`] by a write, after the machine's end.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn waker(&self) -> io::Result<EventFd> {
        self.input_drained.try_clone()
    }

    /// What the ports send to, for a last [`Output::drain`].
    pub fn outputs(&self) -> Vec<Output> {
        self.outputs.clone()
    }

    /// Serves the ports until `control` has ended and one more event arrives. Meant for a thread
    /// of its own that nobody joins: a read of a terminal cannot be taken back.
    pub fn serve(mut self, control: &Control) {
        while !control.has_ended() {
            let readable = self.wait();
            let _ = self.input_drained.read(); // Only to make it unreadable again.
            for (port, readable) in self.ports.iter_mut().zip(readable) {
                port.deliver();
                if readable {
                    port.read();
                }
            }
        }
    }

    /// Waits for something to do, and tells which inputs are readable.
    fn wait(&self) -> Vec<bool> {
        // A negative descriptor is ignored by poll(2).
        let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = vec![watch(self.input_drained.as_raw_fd())];
        fds.extend(self.ports.iter().map(|port| match &port.input {
            Some(input) if port.wants_input() => watch(input.as_raw_fd()),
            _ => watch(-1),
        }));
        // SAFETY: `fds` is a live, writable array of that many `pollfd`.
        if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) } < 0 {
            return vec![false; self.ports.len()];
        }
        fds[1..].iter().map(|fd| fd.revents != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::bus::BusDevice;
    use crate::chipset::uart::UartPorts;
    use crate::control::EndReason;
    use crate::irq::InterruptLine;

    struct Unconnected;
    impl InterruptLine for Unconnected {
        fn set(&self, _asserted: bool) {}
    }

    #[test]
    fn no_input_is_lost_however_slowly_the_guest_reads() {
        let (read, mut write) = io::pipe().unwrap();
        let control = Control::default();
        let mut serial = SerialIo::new().unwrap();
        let port =
            SerialPort { output: Box::new(io::sink()), gather: true, input: Some(read.into()) };
        let uart = serial.add("test", port, Arc::new(Unconnected)).unwrap();
        let mut ports = UartPorts(uart);
        ports.write(4, &[2]); // RTS
        let stop = serial.input_drained.try_clone().unwrap();
        let server = std::thread::spawn({
            let control = control.clone();
            move || serial.serve(&control)
        });

        let sent: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
        write.write_all(&sent).unwrap();
        drop(write);
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let mut status = [0];
            ports.read(5, &mut status);
            if status[0] & 1 == 0 {
                std::thread::yield_now();
                continue;
            }
            let mut byte = [0];
            ports.read(0, &mut byte);
            received.push(byte[0]);
        }
        assert_eq!(received, sent);
        control.end(Ok(EndReason::Stopped));
        stop.write(1).unwrap();
        server.join().unwrap();
    }
}
