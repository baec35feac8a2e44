//! Images end to end: registries, archives and builds, with skopeo, podman and umoci on the other
//! side.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]

mod archives;
mod builds;
mod costs;
mod files;
mod hosts;
mod private;
mod projects;
mod registries;
mod registry;
