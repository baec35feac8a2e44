//! OCI images: a content-addressed store, root filesystems and guest disks.
//!
//! Start at [`Store`]. An [`Image`] of it gives its configuration, its layers as folders for an
//! overlay, and its root file system as a disk. Registries (`isolab-registry`) and Dockerfiles
//! (`isolab-build`) are crates of their own over [`ingest`], since a start needs neither.

mod archive;
mod blob;
mod build_step;
mod disk;
mod disk_usage;
mod document;
mod error;
mod healthcheck;
mod image;
pub mod ingest;
mod inspect;
mod merged;
mod merged_mount;
mod private;
mod removal;
mod resolve;
mod store;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
pub mod testing;
mod unpack;

pub use archive::ArchiveFormat;
pub use build_step::{BuildRunner, BuildStep, Mounted, StepMount};
pub use disk_usage::disk_usage;
pub use error::ImageError;
pub use healthcheck::ImageHealthcheck;
pub use image::Image;
pub use inspect::{HistoryRecord, ImageDetails, ImageRecord, LayerDetails, Listing};
pub use merged::Merged;
pub use merged_mount::{MERGED, run_with_merged};
pub use private::{data_dir, make_private};
pub use removal::remove_tree;
pub use store::{Prune, Removed, Store, StoreUsage, Usage};
