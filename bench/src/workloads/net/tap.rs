//! The tap that all guests use, one after the other.

use std::process::{self, Command};

use crate::machines::MachinesError;

/// The host's address on the tap; 198.18.0.0/15 is for benchmarks (RFC 2544, C.2.2).
pub const HOST: &str = "198.18.77.1";
/// The guest's address on the tap (RFC 2544: for benchmarks).
pub const GUEST: &str = "198.18.77.2";
/// Length of the network's prefix.
pub const PREFIX: u8 = 30;

/// A tap that goes away when it is dropped.
pub struct Tap(String);

impl Tap {
    /// Makes it, with the host's address.
    ///
    /// # Errors
    /// `ip` is not installed, or not permitted.
    pub fn make() -> Result<Self, MachinesError> {
        let name = format!("bench{}", process::id());
        ip(&["tuntap", "add", "dev", &name, "mode", "tap", "vnet_hdr"])?;
        // From here on it is removed, whatever comes.
        let tap = Self(name);
        ip(&["address", "add", &format!("{HOST}/{PREFIX}"), "dev", &tap.0])?;
        ip(&["link", "set", &tap.0, "up"])?;
        Ok(tap)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = ip(&["link", "delete", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), MachinesError> {
    let failed = |source| MachinesError::Host {
        action: "set up (`ip tuntap`, `ip address`, `ip link`; as root, with iproute2)",
        subject: "the tap",
        source,
    };
    let output = Command::new("ip").args(arguments).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(std::io::Error::other(said)))
}
