//! Who takes part: the levels of `isolab run`, bare machines, and the [`peers`] they are measured beside.

mod contestant;
mod levels;
pub mod machine;
pub mod own;
pub mod peers;

pub use self::contestant::MachineSubject;
pub use self::levels::{Level, levels};
pub use self::peers::Peer;
