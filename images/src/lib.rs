//! OCI images: a content-addressed store, root filesystems and guest disks.
//!
//! Start at [`Store`]. An [`Image`] of it gives its configuration, its layers as folders for an
//! overlay, and its root file system as an initramfs.

mod blob;
mod error;
mod image;
mod initramfs;
mod load;
mod lock;
mod store;
mod unpack;

pub use error::ImageError;
pub use image::Image;
pub use store::{ImageRecord, Store, data_dir};
