//! Files of JSON that are always whole: what is new takes the place of what was there in one step.
//!
//! Only who holds the instance's lock writes; who reads needs none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::InstanceError;

/// More is not ours, in bytes.
const MAX_LENGTH: u64 = 4 << 20;

/// Whether a crash of the host, not of a process, may lose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On the disk when this is done.
    Synced,
    /// It is worth nothing once the host has crashed.
    UntilCrash,
}

/// What every file says of itself.
#[derive(Deserialize)]
struct Versioned {
    version: Option<u32>,
}

/// Writes `value` as `folder/name`.
pub(crate) fn write(
    folder: &Path,
    name: &str,
    value: &impl Serialize,
    durability: Durability,
) -> Result<(), InstanceError> {
    let (path, new) = (folder.join(name), folder.join(format!(".{name}.new")));
    let io = |source| InstanceError::Io { action: "write to", path: path.clone(), source };
    let attempt = || -> io::Result<()> {
        let text = serde_json::to_vec(value)?;
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        if durability == Durability::Synced {
            file.sync_data()?;
        }
        fs::rename(&new, &path)?;
        if durability == Durability::Synced {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    attempt().map_err(|error| {
        let _ = fs::remove_file(&new);
        io(error)
    })
}

/// Reads `folder/name`, which has to say that it is of version `version`; None where there is none.
pub(crate) fn read<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
    version: u32,
) -> Result<Option<T>, InstanceError> {
    let path = folder.join(name);
    let io = |source| InstanceError::Io { action: "read", path: path.clone(), source };
    let mut text = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(file) => file.take(MAX_LENGTH).read_to_end(&mut text).map_err(io)?,
    };
    let damaged = |source: serde_json::Error| io(source.into());
    let Versioned { version: found } = serde_json::from_slice(&text).map_err(damaged)?;
    if found != Some(version) {
        return Err(InstanceError::Version { path, found, known: version });
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_written_is_read_and_what_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let read = || read::<Value>(dir.path(), "state.json", 1);
        assert!(read().unwrap().is_none());
        for durability in [Durability::Synced, Durability::UntilCrash] {
            let value = json!({"version": 1, "a": durability == Durability::Synced});
            write(dir.path(), "state.json", &value, durability).unwrap();
            assert_eq!(read().unwrap(), Some(value));
        }
        write(dir.path(), "state.json", &json!({"version": 2}), Durability::UntilCrash).unwrap();
        assert!(matches!(read(), Err(InstanceError::Version { found: Some(2), .. })));
        fs::write(dir.path().join("state.json"), "{\"version\":1,").unwrap();
        assert!(matches!(read(), Err(InstanceError::Io { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_reader_never_sees_half() {
        let dir = tempfile::tempdir().unwrap();
        let value = |n: usize| json!({"version": 1, "n": n, "text": "x".repeat(n * 1000)});
        write(dir.path(), "f", &value(0), Durability::UntilCrash).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..200 {
                    write(dir.path(), "f", &value(n % 7), Durability::UntilCrash).unwrap();
                }
            });
            for _ in 0..200 {
                let seen: Value = read(dir.path(), "f", 1).unwrap().unwrap();
                assert_eq!(seen, value(seen["n"].as_u64().unwrap() as usize));
            }
        });
    }
}
