//! The OCI container runtime.
