//! A store of a measurement's own, with one image in it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use tempfile::TempDir;

use super::images::archive;

/// The image's name in it.
pub const IMAGE: &str = "localhost/bench:latest";
/// /tmp is often in memory, where O_DIRECT is not possible.
const FOLDER: &str = "/var/tmp";

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum OwnStoreError {
    /// A file or a process.
    #[error("cannot {action} of the measurement's own")]
    Host {
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// isolab refused the image.
    #[error("`isolab image load` ended with {status}; it said: {said}")]
    Load {
        /// Its exit status, which is not success.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
}

/// A store that goes away when it is dropped.
pub struct OwnStore {
    folder: TempDir,
    program: PathBuf,
}

impl OwnStore {
    /// Makes it with an image of one layer, which `fill` adds the files to. `program` is the `isolab` that uses it.
    ///
    /// # Errors
    /// [`OwnStoreError`].
    pub fn with_image(
        program: &Path,
        fill: impl FnOnce(&mut tar::Builder<Vec<u8>>) -> io::Result<()>,
    ) -> Result<Self, OwnStoreError> {
        let failed = |action| move |source| OwnStoreError::Host { action, source };
        let folder = tempfile::Builder::new().prefix("isolab-bench.").tempdir_in(FOLDER);
        let folder = folder.map_err(failed("make a store"))?;
        let path = folder.path().join("image.tar");
        let layer = || {
            let mut layer = tar::Builder::new(Vec::new());
            fill(&mut layer)?;
            layer.into_inner()
        };
        archive::write(&path, [layer()].into_iter()).map_err(failed("make an image"))?;
        let store = Self { folder, program: program.to_owned() };
        let mut load = store.isolab();
        load.args(["image", "load", "--tag", IMAGE]).arg(&path);
        let output = load.output().map_err(failed("load an image"))?;
        match output.status.success() {
            true => Ok(store),
            false => Err(OwnStoreError::Load {
                status: output.status,
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    /// `isolab` on this store.
    pub fn isolab(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("XDG_DATA_HOME", self.folder.path()).stdin(Stdio::null());
        command
    }
}
