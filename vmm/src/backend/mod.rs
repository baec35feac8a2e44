//! What stands behind a device on the host: shared by the virtio and the emulated front ends, so
//! that a comparison of the two measures the front end only.

pub mod disk;
pub mod frame_stream;
pub mod handover;
pub mod net;
pub mod output;
pub mod poll_limit;
pub mod regular_file;
pub mod serial_port;
pub mod share;
pub mod tap;
pub mod unix_socket;
pub mod vectors;
mod words;
