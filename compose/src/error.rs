//! What can go wrong with a project.

use std::io;
use std::path::{Path, PathBuf};

use isolab_instances::InstanceError;
use isolab_network::NetworkError;
use isolab_volumes::VolumeError;

use crate::place::Place;

/// Why a project cannot be read, or not be brought up or down.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// A file.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// There is no compose file where one was looked for.
    #[error("there is no compose.yaml, compose.yml, docker-compose.yaml or docker-compose.yml in {} or above", .0.display())]
    NoFile(PathBuf),
    /// Something in a file that is not as the specification has it.
    #[error("{place}: {why}")]
    Invalid {
        /// Where.
        place: Place,
        /// What is wrong.
        why: String,
    },
    /// Something of the specification that isolab cannot do.
    #[error("{place}: {what} is not supported: {why}")]
    Unsupported {
        /// Where.
        place: Place,
        /// What.
        what: String,
        /// Why not, and what can be written instead.
        why: String,
    },
    /// A line of a file of variables.
    #[error("{}:{line}: {why}", file.display())]
    Variables {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The project has no name, and its folder's cannot be one.
    #[error(
        "`{0}` cannot be a project's name: a-z 0-9 _ -, and a letter or digit at the beginning"
    )]
    Name(String),
    /// A service that is not there.
    #[error("there is no service `{0}` in the project")]
    NoSuchService(String),
    /// Nothing to do.
    #[error("the project has no service to start: all of them are of profiles that are not chosen")]
    NoService,
    /// A service cannot be what its level is asked for.
    #[error("{place}: service `{service}` cannot run at level {level}")]
    Level {
        /// Where the service is.
        place: Place,
        /// Its name.
        service: String,
        /// The level.
        level: isolab_isolation::Level,
        /// What the level says.
        #[source]
        source: Box<InstanceError>,
    },
    /// Its image is not in the store.
    #[error("service `{service}` has no image")]
    Image {
        /// The service.
        service: String,
        /// What the store says.
        #[source]
        source: isolab_images::ImageError,
    },
    /// What a service waits for does not come.
    #[error("service `{service}` waits for `{dependency}`, which {why}{}", quoted(log))]
    Dependency {
        /// Who waits.
        service: String,
        /// For whom.
        dependency: String,
        /// What became of it.
        why: String,
        /// The last lines that it wrote.
        log: Vec<String>,
    },
    /// A service did not start, or not well.
    #[error("service `{service}` {why}{}", quoted(log))]
    Failed {
        /// Which one.
        service: String,
        /// What became of it.
        why: String,
        /// The last lines that it wrote.
        log: Vec<String>,
    },
    /// An instance of a service.
    #[error("service `{service}`: cannot {action} {instance}")]
    Instance {
        /// The service.
        service: String,
        /// What was attempted.
        action: &'static str,
        /// The instance's name.
        instance: String,
        /// Why not.
        #[source]
        source: Box<InstanceError>,
    },
    /// The instances of this host.
    #[error("cannot look for the project's instances")]
    Catalogue(#[source] InstanceError),
    /// A network of the project.
    #[error("cannot {action} network `{network}`")]
    Network {
        /// What was attempted.
        action: &'static str,
        /// The network's name.
        network: String,
        /// Why not.
        #[source]
        source: Box<NetworkError>,
    },
    /// A volume of the project.
    #[error("cannot {action} volume `{volume}`")]
    Volume {
        /// What was attempted.
        action: &'static str,
        /// The volume's name.
        volume: String,
        /// Why not.
        #[source]
        source: VolumeError,
    },
    /// The host refused something.
    #[error("cannot {action}")]
    Host {
        /// What.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller wants to stop.
    #[error("interrupted")]
    Interrupted,
}

fn quoted(log: &[String]) -> String {
    let lines = log.iter().map(|line| format!("\n    {line}"));
    if log.is_empty() {
        String::new()
    } else {
        format!("; it wrote last:{}", lines.collect::<String>())
    }
}

impl ComposeError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn invalid(place: &Place, why: impl Into<String>) -> Self {
        Self::Invalid { place: place.clone(), why: why.into() }
    }

    pub(crate) fn unsupported(
        place: &Place,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::Unsupported { place: place.clone(), what: what.into(), why: why.into() }
    }
}
