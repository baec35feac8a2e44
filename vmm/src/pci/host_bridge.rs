//! The host bridge of the paravirtual machine, at 00:00.0.

use super::{ConfigSpace, Identity, PciFunction};

/// A bridge without registers of its own. Linux has no quirk for this id, which Intel's
/// virtualised platforms use.
pub struct HostBridge(ConfigSpace);

impl Default for HostBridge {
    fn default() -> Self {
        Self(ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x0D57,
            class: 0x06,
            ..Identity::default()
        }))
    }
}

impl PciFunction for HostBridge {
    fn name(&self) -> &'static str {
        "host-bridge"
    }

    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.0
    }
}
