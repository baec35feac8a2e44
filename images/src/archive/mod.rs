//! Images in files: OCI image layouts, as a folder or an archive, and `docker save` archives.

mod docker;
mod extract;
mod load;
mod origin;
mod parts;
mod save;
#[cfg(test)]
mod tests;

pub use parts::Parts;
pub use save::ArchiveFormat;
