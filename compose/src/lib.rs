//! The [Compose Specification](https://github.com/compose-spec/compose-spec) over instances, networks and volumes of
//! isolab: one file, at any level of isolation, or with a level for each service.
//!
//! A [`Project`] is read from its files: as trees whose parts know their lines ([`mod@file`]), interpolated and merged,
//! then as what they mean ([`model`]), where all is refused that cannot be done. [`Plan`]s say what a service's
//! instances are asked for at their levels; [`up()`] makes and starts them, [`down()`] ends and removes them. Nothing is
//! remembered but by the labels of instances, networks and volumes ([`label`]), which are Docker's.
//!
//! The crate that there is for the format, compose_spec 0.3, is not used: it is of 2024, reads by the archived
//! serde_yaml, tells no lines, and neither merges nor interpolates, which comes before its types can be read.

mod down;
mod error;
mod event;
mod file;
pub mod instances;
pub mod label;
pub mod model;
mod place;
mod plan;
mod project;
mod render;
mod supplies;
mod up;

pub use down::{DownOptions, down, remove, stop};
pub use error::ComposeError;
pub use event::{Event, Observer, Subject};
pub use file::interpolate::Variables;
pub use place::{Place, Source};
pub use plan::{Levels, Plan};
pub use project::{Project, ProjectOptions, check_name};
pub use render::{to_json, to_yaml};
pub use up::{UpOptions, start, up};
