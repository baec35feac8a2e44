//! Looking at instances from outside, and taking over those that are kept.

use std::fs;
use std::path::PathBuf;

use super::condemned::Condemned;
use super::folder::Owner;
use super::name::is_hidden;
use super::record::{Access, Record};
use super::{InstanceFolder, InstanceName, Instances};
use crate::error::IsolationError;
use crate::instance_id;
use crate::level::Level;

/// An instance as its folder tells of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its level of isolation.
    pub level: Level,
    /// Its folder.
    pub path: PathBuf,
    /// The process that waits, or last waited, for its end.
    pub monitor: u32,
    /// The first process of its workload, where the host has one.
    pub process: Option<i32>,
    /// Whether somebody looks after it: it runs, or is being started or ended.
    pub is_owned: bool,
    /// Whether its folder stays when nobody does.
    pub is_kept: bool,
}

impl Instances {
    /// All instances, by their names. One that is left by a killed owner, and not kept, is no instance
    /// any more.
    ///
    /// # Errors
    /// The folder of all instances cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, IsolationError> {
        // Who looks whether a folder has an owner holds its lock for a moment.
        let _lock = self.lock()?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|source| self.io("read", source))? {
            let entry = entry.map_err(|source| self.io("read", source))?;
            if !is_hidden(&entry.file_name()) {
                entries.extend(look(entry.path()));
            }
        }
        entries.sort_unstable_by(|one: &Entry, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Takes over an instance that is kept and that nobody looks after; what a killed owner left running
    /// of it is ended first.
    ///
    /// # Errors
    /// Somebody looks after it ([`IsolationError::NameInUse`]), or there is no such instance.
    pub fn adopt(&self, name: &InstanceName) -> Result<InstanceFolder, IsolationError> {
        let lock = self.lock()?;
        let path = self.path.join(name.as_str());
        let missing = || IsolationError::NoSuchInstance { name: name.to_string() };
        let Some(mut found) = self.condemn(&path)? else {
            return Err(match Record::read(&path) {
                Some(record) => {
                    IsolationError::NameInUse { name: name.to_string(), monitor: record.monitor }
                }
                None => missing(),
            });
        };
        drop(lock);
        if !found.is_kept() {
            found.remove()?;
            return Err(missing());
        }
        found.clear()?;
        let Condemned { path, record, lock } = found;
        let runtime_id = format!("{name}-{}", instance_id()?);
        let record = record.ok_or_else(missing)?;
        InstanceFolder::adopt(&path, name, runtime_id, record, lock)
            .map_err(|source| IsolationError::Io { action: "write to", path, source })
    }

    /// Gives an instance that nobody looks after another name.
    ///
    /// # Errors
    /// The name is taken.
    pub fn rename(
        &self,
        folder: InstanceFolder,
        name: &InstanceName,
    ) -> Result<InstanceFolder, IsolationError> {
        let _lock = self.lock()?;
        let path = self.path.join(name.as_str());
        if let Some(stale) = self.make_room(name, &path)? {
            stale.remove()?;
        }
        folder.renamed(&path, name)
    }
}

fn look(path: PathBuf) -> Option<Entry> {
    let is_owned = match Owner::of(&path, Access::Read).ok()? {
        Owner::Living => true,
        Owner::Nobody(_) => false,
        Owner::Unknown => return None,
    };
    let record = Record::read(&path)?;
    (is_owned || record.kept).then_some(Entry {
        // Which counts where a kill left a record of the name before.
        name: path.file_name()?.to_str()?.to_owned(),
        id: record.id,
        level: record.level,
        path,
        monitor: record.monitor,
        process: record.process.map(|process| process.pid),
        is_owned,
        is_kept: record.kept,
    })
}
