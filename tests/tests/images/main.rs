//! Images end to end: registries, archives and builds, with skopeo, podman and umoci on the other
//! side.

mod archives;
mod builds;
mod registries;
mod registry;
