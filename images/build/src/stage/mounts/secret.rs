//! Secrets: a file that only one command sees, or a variable.

use std::env;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use isolab_images::ingest::io_error;
use isolab_images::{Mounted, StepMount};
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::option::Secret;
use super::{MountedAll, Outcome, StageBuilder};
use crate::BuildNeed;
use crate::request::Secret as Given;

/// As BuildKit's: more is no secret.
const MAX_BYTES: u64 = 500 << 10;

/// A file system in memory, so that no secret reaches a disk.
const IN_MEMORY: &str = "/dev/shm";

/// The files of secrets, for their owner only; gone when this is dropped.
pub(super) struct Folder {
    folder: TempDir,
    count: usize,
}

impl Folder {
    /// `otherwise`, where there is no file system in memory.
    fn new(otherwise: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("isolab-secrets-");
        // Whatever our umask is.
        let builder = builder.permissions(Permissions::from_mode(0o700));
        let folder = builder.tempdir_in(IN_MEMORY).or_else(|_| builder.tempdir_in(otherwise))?;
        Ok(Self { folder, count: 0 })
    }

    fn add(&mut self, content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<PathBuf> {
        let path = self.folder.path().join(self.count.to_string());
        self.count += 1;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content)?;
        if geteuid().is_root() {
            lchown(&path, Some(owner.0), Some(owner.1))?;
        }
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }
}

impl StageBuilder<'_, '_> {
    /// Adds a secret, or nothing where the operator gave none and none is required.
    pub(super) fn add_secret(&mut self, secret: Secret, all: &mut MountedAll) -> Outcome {
        let id = &secret.id;
        let Some(given) = self.build.request.secrets.get(id) else {
            if secret.required {
                return Err(BuildNeed::Secret(id.clone()).into());
            }
            return Ok(());
        };
        let content = read(given)?;
        if let Some(variable) = &secret.variable {
            let text = String::from_utf8(content.clone());
            let text = text.map_err(|_| format!("the secret `{id}` is no text for a variable"))?;
            if text.contains('\0') {
                return Err(format!("the secret `{id}` is no text for a variable").into());
            }
            all.env.push(format!("{variable}={text}"));
        }
        let Some(target) = secret.target else { return Ok(()) };
        let folder = match &mut all.secrets {
            Some(folder) => folder,
            none => none.insert(Folder::new(self.build.work)?),
        };
        let source = folder.add(&content, secret.mode, secret.owner)?;
        all.mounts.push(StepMount { target, what: Mounted::Path { source, read_only: true } });
        Ok(())
    }
}

fn read(given: &Given) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    match given {
        Given::Variable(name) => {
            let value = env::var_os(name).ok_or_else(|| format!("${name} is not set"))?;
            content = value.into_encoded_bytes();
        }
        Given::File(path) => {
            let file = fs::File::open(path).map_err(io_error("read", path))?;
            let read = file.take(MAX_BYTES + 1).read_to_end(&mut content);
            read.map_err(io_error("read", path))?;
        }
    }
    match content.len() as u64 > MAX_BYTES {
        true => Err(format!("a secret has {} KiB at most", MAX_BYTES >> 10).into()),
        false => Ok(content),
    }
}
