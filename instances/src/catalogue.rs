//! All instances of this host, and finding one of them.

use std::collections::BTreeMap;

use isolab_isolation::volumes::VolumeName;
use isolab_isolation::{Entry, InstanceName, Instances, IsolationError};

use crate::config::Config;
use crate::error::InstanceError;
use crate::networking::sweep_networks;
use crate::state::{State, Status};
use crate::time::Timestamp;

/// An instance as it is now.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name, id, level and folder.
    pub entry: Entry,
    /// What was asked for; None of one that is being made, or that a build runs.
    pub config: Option<Config>,
    /// What became of it.
    pub state: State,
}

/// The instances of a data folder.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Their folders.
    pub instances: Instances,
}

impl Catalogue {
    /// Those of [`isolab_images::data_dir`].
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open_default() -> Result<Self, InstanceError> {
        Ok(Self { instances: Instances::open_default()? })
    }

    /// All instances, by their names. What is said of one whose supervisor was killed is put right first.
    ///
    /// # Errors
    /// The folder cannot be read. An instance whose files are damaged is told as one without them.
    pub fn all(&self) -> Result<Vec<Instance>, InstanceError> {
        sweep_after_others();
        let entries = self.instances.list()?.into_iter();
        Ok(entries.map(|entry| self.look(entry)).collect())
    }

    /// The instance of this name, or whose id begins so, as podman looks for it.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn find(&self, word: &str) -> Result<Instance, InstanceError> {
        let mut entries = self.instances.list()?;
        if let Some(at) = entries.iter().position(|entry| entry.name == word || entry.id == word) {
            return Ok(self.look(entries.swap_remove(at)));
        }
        let is_prefix = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        entries.retain(|entry| is_prefix && entry.id.starts_with(word));
        match entries.len() {
            0 => Err(InstanceError::NoSuchInstance(word.to_owned())),
            1 => Ok(self.look(entries.swap_remove(0))),
            _ => Err(InstanceError::Ambiguous {
                prefix: word.to_owned(),
                names: entries.into_iter().map(|entry| entry.name).collect(),
            }),
        }
    }

    /// The names of the instances that have, or will have again, each volume, running or not.
    ///
    /// # Errors
    /// As [`Catalogue::all`].
    pub fn volume_users(&self) -> Result<BTreeMap<VolumeName, Vec<String>>, InstanceError> {
        let mut users: BTreeMap<VolumeName, Vec<String>> = BTreeMap::new();
        for instance in self.all()? {
            let config = instance.config.as_ref();
            for volume in config.iter().flat_map(|config| config.request.filesystem.volumes()) {
                users.entry(volume.clone()).or_default().push(instance.name().to_owned());
            }
        }
        Ok(users)
    }

    fn look(&self, entry: Entry) -> Instance {
        // One that is damaged can be seen and removed.
        let config = Config::read(&entry.path).ok().flatten();
        let state = match State::read(&entry.path) {
            Ok(Some(state)) => state,
            // In the foreground: it has an owner as long as it runs.
            Ok(None) if entry.is_owned && config.is_some() => State {
                status: Status::Running,
                started_at: entry
                    .path
                    .metadata()
                    .ok()
                    .and_then(|it| it.modified().ok())
                    .map(Timestamp::from),
                ..State::default()
            },
            Ok(None) => State::default(),
            Err(error) => State { error: error.to_string(), ..State::default() },
        };
        let state = match entry.is_owned || !state.status.is_active() {
            true => state,
            false => self.correct(&entry, state),
        };
        Instance { entry, config, state }
    }

    /// The owner is gone: what it left is ended, and its end written down.
    fn correct(&self, entry: &Entry, state: State) -> State {
        let corrected = state.without_supervisor();
        // Somebody else may be at it, or start it, just now; then the truth is theirs to write.
        let adopted =
            entry.name.parse::<InstanceName>().ok().map(|name| self.instances.adopt(&name));
        if let Some(Ok(folder)) = adopted {
            let _ = corrected.write(folder.path());
        }
        sweep_after_others();
        corrected
    }
}

impl Instance {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Its state, as an error to somebody who wanted `action`.
    pub fn wrong_state(&self, action: &'static str) -> InstanceError {
        let (name, status) = (self.entry.name.clone(), self.state.status.to_string());
        InstanceError::WrongState { name, status, action }
    }
}

/// What killed instances have left on networks is gone before anybody is told of them. Who may not remove it may still
/// look.
pub(crate) fn sweep_after_others() {
    let _ = sweep_networks();
}

/// Whether an error says that somebody looks after the instance.
pub(crate) fn is_in_use(error: &IsolationError) -> bool {
    matches!(error, IsolationError::NameInUse { .. })
}
