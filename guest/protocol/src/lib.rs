//! What isolab and its init say to each other.
//!
//! The host puts a [`Workload`] into the initramfs; everything after that travels as [`Frame`]s
//! over the control channel, whatever [`Line`] that has.
//!
//! Every stream of every process has a window: neither side sends more of it than the other has said it
//! has room for. So a reader that is slow, or gone, holds up its own stream and no other, and what either
//! side has to keep is bounded, whatever the other one says.

mod codec;
mod interface;
pub mod mailbox;
mod message;
mod mount;
mod process;
mod rights;
mod workload;

pub use codec::{Decoder, Frame, FrameError, HEADER_LENGTH, Message};
pub use interface::{Interface, InterfaceAddress, netmask4};
pub use isolab_transfer::FileRequest;
pub use message::{
    FromGuest, FromHost, MAX_PIECE, OUTPUT_WINDOW, ProcessId, STDIN_WINDOW, Stream, WORKLOAD,
    output_header,
};
pub use mount::{Mount, MountSource};
pub use process::{GuestUsage, Process, ProcessRecord, Service, Task, User, WindowSize};
pub use rights::{CapabilitySets, KernelSettings, Rights, Rlimit};
pub use workload::{Line, NameFile, RootDisks, Workload};

/// The folder in the initramfs that holds init and what it needs. Removed before the workload
/// starts, so that the workload sees its image only.
pub const GUEST_DIR: &str = "/.isolab";

/// The folder in the initramfs that holds [files that are mounted](MountSource::File). It stays, below the workload's
/// root.
pub const FILES_DIR: &str = "/.isolab-files";

/// Where the initramfs holds the [`Workload`], as JSON.
pub const WORKLOAD_FILE: &str = "/.isolab/workload.json";

/// The guest's device for [`Line::Serial`]: COM2.
pub const CONTROL_TTY: &str = "/dev/ttyS1";

/// I/O port that init writes [`Marker`]s to. Reads as the POST diagnostic port of a PC, which
/// Linux itself writes for delays only (`io_delay`), with whatever is in AL.
pub const MARKER_PORT: u16 = 0x80;

/// Milestones of a guest, written to [`MARKER_PORT`] at the cost of one VM exit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Marker {
    /// The kernel started init.
    Init = 0xe1,
    /// Init is about to start the workload.
    Workload = 0xe2,
    /// The workload ended.
    Ended = 0xe3,
}
