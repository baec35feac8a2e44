//! The instances of this host, each with a folder that says whether it still has an owner.
//!
//! An instance belongs to the process that waits for its end. When that process is killed, what it
//! made stays: the folder, cgroups, at level `process` the process. The kernel gives its lock on the
//! folder back, and whoever finds a folder without an owner removes all of it ([`Instances::sweep`]).
//!
//! Folders appear, and are given up, under a lock on the folder above them. So nobody sees half of
//! one, no two sweep the same one, and none is swept before its owner holds it.

mod condemned;
mod entry;
mod folder;
mod name;
mod record;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use isolab_images::{Usage, disk_usage};
use nix::fcntl::{Flock, FlockArg};

pub use condemned::Leftover;
pub use entry::Entry;
pub use folder::InstanceFolder;
pub use name::{InstanceName, NameError, parse_hostname};
pub use record::ProcessId;

use crate::error::IsolationError;
use crate::level::Level;
use crate::random_digits;
use condemned::Condemned;
use folder::{Owner, empty};
use name::{CONDEMNED, is_hidden};
use record::{Access, Record};

/// A folder that is being filled. No instance's name begins so.
const NEW: &str = ".new-";

/// The folder that holds the instances' folders.
#[derive(Clone, Debug)]
pub struct Instances {
    path: PathBuf,
}

/// What [`Instances::sweep`] did.
#[derive(Debug, Default)]
pub struct Sweep {
    /// What was removed, an entry for each instance.
    pub removed: Vec<Leftover>,
    /// What it could not remove.
    pub failures: Vec<IsolationError>,
}

impl Instances {
    /// The instances whose folders are in `path`, which is made where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> Result<Self, IsolationError> {
        let instances = Self { path: path.to_owned() };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| instances.io("create", source))?;
        Ok(instances)
    }

    /// Those of [`isolab_images::data_dir`].
    ///
    /// # Errors
    /// As [`Instances::open`].
    pub fn open_default() -> Result<Self, IsolationError> {
        Self::open(&isolab_images::data_dir().join("instances"))
    }

    /// Makes the folder of a new instance; without a name it gets a random one.
    ///
    /// # Errors
    /// The name is a living instance's, or the folder cannot be written.
    pub fn create(
        &self,
        name: Option<InstanceName>,
        level: Level,
    ) -> Result<InstanceFolder, IsolationError> {
        let id = random_digits::<32>()?;
        let short = &id[..12];
        let (name, runtime_id) = match name {
            Some(name) => {
                let runtime_id = format!("{name}-{short}");
                (name, runtime_id)
            }
            None => (InstanceName::random(short), short.to_owned()),
        };
        let lock = self.lock()?;
        let path = self.path.join(name.as_str());
        let stale = self.make_room(&name, &path)?;
        let unfinished = self.path.join(format!("{NEW}{name}"));
        let half = self.condemn(&unfinished)?;
        let made = DirBuilder::new().mode(0o700).create(&unfinished);
        made.map_err(|source| self.io("write to", source))?;
        let record = Record::new(name.as_str(), &id, level);
        let filled = InstanceFolder::fill(&unfinished, &name, runtime_id, record)
            .and_then(|mut folder| folder.appear(&path).map(|()| folder));
        let folder = filled.map_err(|source| {
            // On a full disk, for example.
            let _ = empty(&unfinished);
            self.io("write to", source)
        })?;
        drop(lock);
        for condemned in stale.into_iter().chain(half) {
            condemned.remove()?;
        }
        Ok(folder)
    }

    /// Gives up a folder of that name whose owner is gone.
    fn make_room(
        &self,
        name: &InstanceName,
        path: &Path,
    ) -> Result<Option<Condemned>, IsolationError> {
        // A link is in the way as well, wherever it leads.
        if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        match self.condemn(path)? {
            Some(condemned) if condemned.is_kept() => {
                return Err(IsolationError::NameTaken { name: name.to_string() });
            }
            Some(condemned) => return Ok(Some(condemned)),
            None => {}
        }
        let Some(record) = Record::read(path) else {
            if !path.exists() && !path.is_symlink() {
                return Ok(None); // it has just ended
            }
            return Err(IsolationError::Setting {
                field: "name",
                why: format!("{} is in the way, and is no instance's folder", path.display()),
            });
        };
        Err(IsolationError::NameInUse { name: name.to_string(), monitor: record.monitor })
    }

    /// Where all of them are, and what they share.
    pub(crate) fn folder(&self) -> &Path {
        &self.path
    }

    /// Removes what instances without an owner have left: their processes, cgroups and folders.
    ///
    /// # Errors
    /// The folder of all instances cannot be read. What cannot be removed is told in [`Sweep`].
    pub fn sweep(&self) -> Result<Sweep, IsolationError> {
        let lock = self.lock()?;
        let mut sweep = Sweep::default();
        let mut all = Vec::new();
        let entries = fs::read_dir(&self.path).map_err(|source| self.io("read", source))?;
        for entry in entries {
            let entry = entry.map_err(|source| self.io("read", source))?;
            // A link is nobody's folder, and what all share has a name that no instance can have.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_shared(&entry.file_name()) {
                match self.condemn(&entry.path()) {
                    // Of what is kept there is mostly nothing left to end.
                    Ok(Some(kept)) if kept.is_kept() && !kept.has_remains() => {}
                    Ok(condemned) => all.extend(condemned),
                    Err(error) => sweep.failures.push(error),
                }
            }
        }
        // The rest takes its time, and is nobody's but ours now.
        drop(lock);
        for condemned in all {
            match condemned.remove() {
                Ok(leftover) => sweep.removed.extend(leftover),
                Err(error) => sweep.failures.push(error),
            }
        }
        Ok(sweep)
    }

    /// What the instances take on the disk; those without an owner are reclaimable. What they share
    /// counts as used.
    ///
    /// # Errors
    /// The folder of all instances cannot be read.
    pub fn usage(&self) -> Result<Usage, IsolationError> {
        let lock = self.lock()?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|source| self.io("read", source))? {
            let path = entry.map_err(|source| self.io("read", source))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_ours_by_name = name.starts_with(NEW) || name.starts_with(CONDEMNED);
            let is_active = match Owner::of(&path, Access::Read) {
                Ok(Owner::Living) => Some(true),
                Ok(Owner::Nobody(_)) => match Record::read(&path) {
                    Some(record) if record.kept => None,
                    record => (is_ours_by_name || record.is_some()).then_some(false),
                },
                _ => None,
            };
            found.push((path, is_active));
        }
        // A start need not wait while we count.
        drop(lock);
        let mut usage = Usage::default();
        for (path, is_active) in found {
            match (disk_usage(&path), is_active) {
                (size, Some(is_active)) => usage.add(size, is_active),
                (size, None) => usage.size += size,
            }
        }
        Ok(usage)
    }

    /// Takes a folder whose owner is gone out of sight. The lock on the folder above is held.
    fn condemn(&self, path: &Path) -> Result<Option<Condemned>, IsolationError> {
        let io = |action, source| IsolationError::Io { action, path: path.to_owned(), source };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours_by_name = name.starts_with(NEW) || name.starts_with(CONDEMNED);
        let lock = match Owner::of(path, Access::Append) {
            // It has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io("look into", source)),
            Ok(Owner::Nobody(lock)) => lock,
            Ok(Owner::Unknown) if is_ours_by_name => {
                // The lock is the first that is made and the last that is removed: the folder is
                // empty, or not ours after all.
                let _ = fs::remove_dir(path);
                return Ok(None);
            }
            Ok(Owner::Living | Owner::Unknown) => return Ok(None),
        };
        let record = Record::read(path);
        if name.starts_with(CONDEMNED) || record.as_ref().is_some_and(|record| record.kept) {
            return Ok(Some(Condemned { path: path.to_owned(), record, lock }));
        }
        let Some(name) = record.as_ref().map(|record| record.name.as_str()).or_else(|| {
            // Killed before it wrote the record.
            name.strip_prefix(NEW)
        }) else {
            return Ok(None);
        };
        let target = name::condemned(&self.path, name).map_err(|source| io("name", source))?;
        fs::rename(path, &target).map_err(|source| io("rename", source))?;
        Ok(Some(Condemned { path: target, record, lock }))
    }

    /// Held for a moment by who makes a folder appear or disappear.
    fn lock(&self) -> Result<Flock<File>, IsolationError> {
        let folder = File::open(&self.path).map_err(|source| self.io("open", source))?;
        let lock = Flock::lock(folder, FlockArg::LockExclusive);
        lock.map_err(|(_, errno)| self.io("lock", errno.into()))
    }

    fn io(&self, action: &'static str, source: io::Error) -> IsolationError {
        IsolationError::Io { action, path: self.path.clone(), source }
    }
}

/// Whether `name` is neither an instance's nor that of one which is made or removed.
fn is_shared(name: &OsStr) -> bool {
    let is_of = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
    is_hidden(name) && !is_of(NEW) && !is_of(CONDEMNED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    fn instances() -> (tempfile::TempDir, Instances) {
        let dir = tempfile::tempdir().unwrap();
        let instances = Instances::open(&dir.path().join("instances")).unwrap();
        (dir, instances)
    }

    fn named(instances: &Instances, name: &str) -> Result<InstanceFolder, IsolationError> {
        instances.create(Some(name.parse().unwrap()), Level::Container)
    }

    /// A child that another test makes has a copy of each lock until it executes its program.
    fn named_soon(instances: &Instances, name: &str) -> InstanceFolder {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match named(instances, name) {
                Err(IsolationError::NameInUse { .. }) if Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                named => return named.unwrap(),
            }
        }
    }

    fn left(instances: &Instances) -> Vec<String> {
        let entries = fs::read_dir(&instances.path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_name_is_taken_until_its_owner_is_gone() {
        let (_dir, instances) = instances();
        let first = named(&instances, "web").unwrap();
        let error = named(&instances, "web").unwrap_err();
        let monitor = std::process::id();
        assert!(
            matches!(&error, IsolationError::NameInUse { name, monitor: m } if name == "web" && *m == monitor)
        );
        let other = instances.create(None, Level::Process).unwrap();
        assert_eq!(other.name().as_str(), other.runtime_id());
        assert_ne!(first.runtime_id(), named(&instances, "web2").unwrap().runtime_id());
        // Whoever looks after the instance when its owner was killed is an owner too.
        let guardian = first.owner_lock().unwrap();
        first.abandon();
        assert!(named(&instances, "web").is_err());
        assert_eq!(instances.sweep().unwrap().removed, []);
        drop(guardian);
        let again = named(&instances, "web").unwrap();
        fs::write(again.path().join("written"), "").unwrap();
        again.remove().unwrap();
        drop(other);
        assert_eq!(left(&instances), [""; 0]);
    }

    #[test]
    fn a_sweep_takes_what_nobody_owns_and_nothing_else() {
        let (dir, instances) = instances();
        let living = named(&instances, "living").unwrap();
        let mut dead = named(&instances, "dead").unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        dead.record(vec!["/sys/fs/cgroup/isolab-is-gone-already".into()], child.id() as i32)
            .unwrap();
        fs::create_dir_all(dead.path().join("work/work")).unwrap();
        let monitor = std::process::id();
        dead.abandon();
        // What others put there, and what looks like ours.
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("lock"), "").unwrap();
        symlink(&outside, instances.path.join("link")).unwrap();
        fs::create_dir_all(instances.path.join("theirs/files")).unwrap();
        fs::create_dir(instances.path.join("locked")).unwrap();
        fs::write(instances.path.join("locked/lock"), "").unwrap();
        fs::create_dir(instances.path.join("piped")).unwrap();
        nix::unistd::mkfifo(&instances.path.join("piped/lock"), nix::sys::stat::Mode::S_IRWXU)
            .unwrap();
        fs::write(instances.path.join(".scratch-v1.ext4"), "").unwrap();
        // Killed while it was made, and while it was removed.
        fs::create_dir(instances.path.join(".new-early")).unwrap();
        fs::create_dir(instances.path.join(".new-later")).unwrap();
        fs::write(instances.path.join(".new-later/lock"), "").unwrap();
        fs::create_dir_all(instances.path.join(".condemned-1/upper")).unwrap();
        fs::write(instances.path.join(".condemned-1/lock"), "").unwrap();
        fs::create_dir(instances.path.join(".condemned-2")).unwrap();

        let usage = instances.usage().unwrap();
        // The living one; the dead one, and two that were killed while they were made or removed.
        assert_eq!((usage.total, usage.active), (4, 1));
        assert!(usage.reclaimable > 0 && usage.reclaimable < usage.size);
        let sweep = instances.sweep().unwrap();
        assert!(sweep.failures.is_empty(), "{:?}", sweep.failures);
        let leftover = Leftover {
            name: "dead".to_owned(),
            level: Level::Container,
            monitor,
            killed: Some(child.id() as i32),
            cgroups: vec!["/sys/fs/cgroup/isolab-is-gone-already".into()],
            freed: sweep.removed[0].freed,
        };
        assert_eq!(sweep.removed, [leftover]);
        child.wait().unwrap();
        let kept = [".scratch-v1.ext4", "link", "living", "locked", "piped", "theirs"];
        assert_eq!(left(&instances), kept);
        assert!(outside.join("lock").exists());
        assert!(living.path().exists());
        assert!(matches!(named(&instances, "theirs"), Err(IsolationError::Setting { .. })));
        assert!(matches!(named(&instances, "link"), Err(IsolationError::Setting { .. })));
    }

    #[test]
    fn sweepers_and_starters_at_once_never_take_what_is_used() {
        let (_dir, instances) = instances();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let instances = &instances;
                scope.spawn(move || {
                    for _ in 0..50 {
                        let folder = named_soon(instances, &format!("worker-{worker}"));
                        fs::write(folder.path().join("mine"), "").unwrap();
                        instances.sweep().unwrap();
                        assert!(folder.path().join("mine").exists());
                        match worker {
                            0 | 1 => folder.abandon(),
                            _ => folder.remove().unwrap(),
                        }
                    }
                });
            }
        });
        let sweep = instances.sweep().unwrap();
        assert!(sweep.failures.is_empty(), "{:?}", sweep.failures);
        assert_eq!(left(&instances), [""; 0]);
    }
}
