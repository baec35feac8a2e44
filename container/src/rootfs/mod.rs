//! The container's root filesystem, made inside the new mount namespace.
//!
//! Everything is mounted below the *unentered* root through descriptors that openat2(2) resolved inside it
//! (`resolve`), with the host's `/proc` still in place to name them; the root directory changes last.

pub(crate) mod bind;
pub(crate) mod cgroup_mount;
mod copy_up;
pub(crate) mod devices;
pub(crate) mod id_mapped;
mod mapped_overlay;
pub(crate) mod mask;
pub(crate) mod mounts;
pub(crate) mod options;
mod overlay;
pub(crate) mod plan;
pub(crate) mod resolve;
pub(crate) mod root;
