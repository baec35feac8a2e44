//! The labels by which instances, networks and volumes are a project's: Docker's, so that its tools' users find them.

/// The project's name.
pub const PROJECT: &str = "com.docker.compose.project";
/// The service's.
pub const SERVICE: &str = "com.docker.compose.service";
/// Which of the service's instances, from 1 on.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// Whether it is beside the service's own.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// What makes the instance another one when it changes.
pub const HASH: &str = "com.docker.compose.config-hash";
/// The image's digest.
pub const IMAGE: &str = "com.docker.compose.image";
/// The project's folder.
pub const FOLDER: &str = "com.docker.compose.project.working_dir";
/// The project's files.
pub const FILES: &str = "com.docker.compose.project.config_files";
/// What the service waits for: `SERVICE:CONDITION:RESTART`, commas between.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// A network's name in the files.
pub const NETWORK: &str = "com.docker.compose.network";
/// A volume's.
pub const VOLUME: &str = "com.docker.compose.volume";
