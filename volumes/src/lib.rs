//! Volumes: what instances keep beside their images, and share.
//!
//! ```text
//! volumes/NAME/volume.json   what it is (`record`)
//! volumes/NAME/lock          under flock(2) by whoever uses it: shared, or alone
//! volumes/NAME/data/         its files, if it is a folder
//! volumes/NAME/disk          its file system, if it is a disk
//! ```
//!
//! A volume is a folder of the host, which any number of instances share, or a disk with a file system, which one
//! machine has at a time: no PC hardware shares a folder. Its first use decides which, unless its maker did.
//!
//! Volumes appear, and are given up, under a lock on the folder above them; whoever uses one holds its own lock, of
//! which the kernel frees the dead.

mod disk;
mod error;
mod lease;
mod name;
mod record;
mod store;

pub use disk::TopFolder;
pub use error::VolumeError;
pub use lease::{Fill, Lease};
pub use name::{BadName, VolumeName};
pub use record::{Kind, Owner, VolumeRecord};
pub use store::{NewVolume, Volumes};
