//! OCI images: a content-addressed store, root filesystems and guest disks.
//!
//! Start at [`Store`]. An [`Image`] of it gives its configuration, its layers as folders for an
//! overlay, and its root file system as a disk.

mod archive;
mod blob;
mod build;
mod disk;
mod error;
mod image;
mod private;
mod registry;
mod removal;
mod store;
#[cfg(test)]
mod testing;
mod unpack;

pub use archive::ArchiveFormat;
pub use build::merged::Merged;
pub use build::{BuildNews, BuildRequest, BuildRunner, BuildStep, Mounted, Secret, StepMount};
pub use error::ImageError;
pub use image::Image;
pub use private::{data_dir, make_private};
pub use registry::{Progress, RegistryOptions, Silent, login};
pub use removal::remove_tree;
pub use store::{
    HistoryRecord, ImageDetails, ImageRecord, LayerDetails, Listing, Prune, Removed, Store,
};
