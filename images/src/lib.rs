//! OCI images: store, root filesystems.
