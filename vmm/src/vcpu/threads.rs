//! The threads of a machine's vCPUs: all are started or none, and stopped by a deadline.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuFd;

use super::kick::Kicker;
use super::run::Vcpu;
use super::{Fault, VcpuError};
use crate::control::{Control, EndReason};
use crate::threads;

/// Between two kicks of a vCPU that is to leave its loop.
const KICK_INTERVAL: Duration = Duration::from_micros(200);
/// How long those that were started may take to stop when one cannot be.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// A thread that the host refused.
#[derive(Debug)]
pub struct Refused {
    /// What it was to be called in the host's list.
    pub name: String,
    /// The host's answer.
    pub source: io::Error,
}

/// A vCPU on its thread.
pub struct Running {
    kicker: Kicker,
    thread: JoinHandle<VcpuFd>,
}

impl Running {
    /// Waits for the thread, which leaves its loop because the machine has ended, until `deadline`;
    /// `None` if it has not left by then. The kick is repeated because a signal may also arrive
    /// just before a blocking call of a device. What is inside is the vCPU, unless it panicked.
    pub fn stop(self, deadline: Instant) -> Option<Option<VcpuFd>> {
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                return None;
            }
            self.kicker.kick();
            if !self.thread.is_finished() {
                thread::sleep(KICK_INTERVAL);
            }
        }
        Some(self.thread.join().ok())
    }
}

/// Starts all vCPUs. If one is refused its thread, the machine ends and the others are stopped.
///
/// # Errors
/// The thread that the host refused.
pub fn start(vcpus: Vec<Vcpu>, control: &Control) -> Result<Vec<Running>, Refused> {
    let mut running: Vec<Running> = Vec::new();
    // The boot processor last, so that the others already wait for their INIT.
    for vcpu in vcpus.into_iter().rev() {
        let kicker = vcpu.kicker.clone();
        let name = format!("vcpu{}", vcpu.id);
        let on_panic = EndOnPanic { cpu: vcpu.id, control: control.clone() };
        let started = threads::builder(&name).spawn(move || {
            let _on_panic = on_panic;
            vcpu.run()
        });
        match started {
            Ok(thread) => running.push(Running { kicker, thread }),
            Err(source) => {
                control.end(Ok(EndReason::Stopped));
                let deadline = Instant::now() + ROLLBACK_TIMEOUT;
                running.into_iter().for_each(|vcpu| drop(vcpu.stop(deadline)));
                return Err(Refused { name, source });
            }
        }
    }
    Ok(running)
}

/// A bug in a device must end the machine, not leave it without a CPU.
struct EndOnPanic {
    cpu: u32,
    control: Control,
}

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = VcpuError { cpu: self.cpu, fault: Fault::Panicked, registers: None };
            self.control.end(Err(error));
        }
    }
}
