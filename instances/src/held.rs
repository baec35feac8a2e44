//! An instance that does not run, held for its files: made as for a run, with all that is mounted in it, and never
//! started.

use std::fs::File;
use std::os::fd::OwnedFd;

use isolab_images::Store;
use isolab_isolation::{
    InstanceFolder, InstanceName, InstanceSpec, IsolationError, Link, Network, Stdio, level,
};
use nix::unistd::geteuid;

use crate::catalogue::{Catalogue, Instance};
use crate::config::Config;
use crate::error::InstanceError;

/// Such an instance. Nobody can start or remove it meanwhile. Dropping it takes apart what was made, and leaves what was
/// written.
pub struct Held {
    // Dropped before the lock goes.
    made: Box<dyn isolab_isolation::Instance>,
    folder: InstanceFolder,
}

impl Catalogue {
    /// Makes the files of an instance that does not run accessible. `action` is what they are wanted for.
    ///
    /// # Errors
    /// It runs, or its level cannot be made without being started: a guest's disk is read by nobody but a guest, since
    /// its contents are hostile to a file system of the host's; and what is made by a user other than root cannot be
    /// looked into before it runs.
    pub fn hold(&self, instance: &Instance, action: &'static str) -> Result<Held, InstanceError> {
        if instance.entry.is_owned {
            return Err(instance.wrong_state(action));
        }
        let own = instance.entry.level;
        if own.is_virtual_machine() {
            let what = "copy files of an instance that does not run: only a guest reads its disk; start it first";
            return Err(IsolationError::Unsupported { level: own, what }.into());
        }
        if !geteuid().is_root() {
            let what = "show another user than root the files of an instance that does not run; start it first";
            return Err(IsolationError::Unsupported { level: own, what }.into());
        }
        let name = instance.name();
        let unknown = || InstanceError::NoSuchInstance(name.to_owned());
        let parsed: InstanceName = name.parse().map_err(|_| unknown())?;
        let folder = self.instances.adopt(&parsed)?;
        let config = Config::read(folder.path())?.ok_or_else(unknown)?;
        let image = Store::open_default()?.resolve(&config.image_id)?;
        let null = || File::options().write(true).open("/dev/null").map(OwnedFd::from);
        let null = || null().map_err(InstanceError::host("open /dev/null"));
        let stdio = Stdio::Streams { stdin: None, stdout: null()?, stderr: null()? };
        let spec = InstanceSpec {
            folder: folder.share()?,
            spec: config.request.to_spec(folder.level(), &image)?,
            image,
            filesystem: config.request.filesystem.clone(),
            init: config.request.security.init,
            stdio,
            kernel: config.kernel.clone(),
            patience: config.patience,
            network: Network::of(Link::None),
        };
        let made = level(folder.level()).create(spec)?;
        Ok(Held { made, folder })
    }
}

impl Held {
    /// The instance's id.
    pub fn id(&self) -> &str {
        self.folder.id()
    }

    /// The process that would become the workload, and sees files as that would.
    ///
    /// # Errors
    /// It was killed.
    pub fn process(&self) -> Result<i32, InstanceError> {
        let lost = || InstanceError::NoSuchInstance(self.folder.name().to_string());
        Ok(self.folder.process().ok_or_else(lost)?.pid)
    }

    /// Takes apart what was made.
    ///
    /// # Errors
    /// What is left of it, which the next start removes.
    pub fn release(self) -> Result<(), InstanceError> {
        self.made.remove()?;
        Ok(self.folder.remove()?)
    }
}
