//! What the operator should know of a virtio device that stopped or never started.

use std::error::Error;

use crate::log_limit::LogLimit;

/// The words of one device; a guest may break it, reset it and break it again for ever.
#[derive(Debug)]
pub struct DeviceLog {
    device: &'static str,
    limit: LogLimit,
}

impl DeviceLog {
    /// The log of the device called `device`.
    pub fn new(device: &'static str) -> Self {
        Self { device, limit: LogLimit::default() }
    }

    /// The driver broke a queue, and the device waits for its reset.
    pub fn queue_broken(&self, queue: u16, reason: &str) {
        if let Some(left_out) = self.limit.admit() {
            let device = self.device;
            tracing::warn!(device, queue, left_out, "the driver broke a virtqueue: {reason}");
        }
    }

    /// The device lives, and does nothing until something outside changes: `reason`.
    pub fn stopped(&self, reason: &str) {
        if let Some(left_out) = self.limit.admit() {
            tracing::warn!(device = self.device, left_out, "{reason}");
        }
    }

    /// The driver was ready and the device could not start, or cannot go on; `what` is the
    /// failure.
    pub fn failed(&self, what: &str, cause: &(dyn Error + 'static)) {
        if let Some(left_out) = self.limit.admit() {
            tracing::error!(device = self.device, left_out, cause, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_limit::{MESSAGES, testing::messages};

    #[test]
    fn a_guest_that_breaks_its_device_for_ever_is_a_few_lines() {
        let log = DeviceLog::new("virtio-rng");
        let lines = messages(|| {
            let cause = std::io::Error::from_raw_os_error(libc::EMFILE);
            log.failed("the device cannot start", &cause);
            for _ in 0..1000 {
                log.queue_broken(3, "no end");
            }
        });
        assert_eq!(lines.len(), MESSAGES as usize);
        for (line, parts) in [
            (&lines[0], ["ERROR", "the device cannot start", "Too many open files"]),
            (&lines[1], ["WARN", "queue=3", "virtqueue: no end"]),
        ] {
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
            assert!(line.contains("virtio-rng"), "{line}");
        }
    }
}
