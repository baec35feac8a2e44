//! Instances that live longer than the command that made them, without a daemon.
//!
//! An instance is a folder ([`isolab_isolation::Instances`]), in which this crate keeps what was asked
//! for ([`Config`]), what became of it ([`State`]) and what its workload wrote ([`log`]). As long as it
//! runs, a process of its own looks after it (`supervisor`), and answers commands (`client`) over a
//! socket in the folder (`protocol`). When that process is killed, whoever looks next finds out and puts
//! the state right ([`Catalogue`]).
//!
//! ```text
//! NAME/config.json      what was asked for, never changed
//! NAME/state.json       what became of it, written anew at each change
//! NAME/log, log.1 …     what the workload wrote
//! NAME/socket           where the supervisor answers
//! NAME/supervisor.log   its own errors
//! ```

mod catalogue;
mod client;
mod config;
mod document;
mod error;
mod health;
mod held;
pub mod host;
mod lifecycle;
pub mod log;
mod networking;
mod protocol;
mod signal;
mod state;
mod supervisor;
pub mod time;

pub use catalogue::{Catalogue, Instance};
pub use client::{Asides, Session, Streams};
pub use config::{Config, LogOptions, NoRestartPolicy, ProcessSummary, RestartPolicy};
pub use error::InstanceError;
pub use health::{HealthCheck, HealthOptions, parse_interval, shell_line};
pub use held::Held;
pub use isolab_network::{HostName, PublishedPort};
pub use lifecycle::Starting;
pub use networking::{Attachment, Connected, Networking, sweep_networks};
pub use signal::parse_signal;
pub use state::{Check, Health, HealthStatus, State, Status};
pub use supervisor::{Describe, Foreground, serve_foreground};
