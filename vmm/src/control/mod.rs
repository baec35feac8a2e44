//! Control of a machine that runs: its end and its pauses ([`run_state`]), and the socket over
//! which other programs ask for them ([`protocol`], [`server`], [`client`]).

pub mod client;
pub mod protocol;
pub mod run_state;
pub mod server;

pub use self::run_state::{Control, EndReason, MachineEnd};
