//! `RUN --mount`: what a command finds mounted, and no later one.
//!
//! What is bound is always a copy of ours or a folder of ours, never the context or a layer: links
//! were resolved inside their source, what .dockerignore names is not in it, and what a command
//! writes reaches nobody.

mod cache;
mod option;
mod secret;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use isolab_images::ingest::{FileLock, hex};
use isolab_images::{Merged, Mounted, StepMount};
use serde_json::{Value, json};

use super::{Outcome, StageBuilder};
use crate::check_of;
use crate::context::{Source, normal};
use crate::copy::{CopyPlan, Ownership, Target};
use option::{Bind, MountOption};

/// A mount of which everything is known that the command's outcome depends on.
pub(super) struct Planned {
    option: MountOption,
    /// What is bound, or what a new cache begins with, with its digest.
    content: Option<(Copied, String)>,
}

/// Files that a mount takes of a source.
struct Copied {
    plan: CopyPlan,
    /// Of a lone file in the folder of the copy.
    name: Option<PathBuf>,
}

/// What is there for one command.
#[derive(Default)]
pub(super) struct MountedAll {
    pub(super) mounts: Vec<StepMount>,
    /// Secrets that are variables.
    pub(super) env: Vec<String>,
    secrets: Option<secret::Folder>,
    /// Caches by their ids: one that is mounted twice must not wait for itself.
    caches: HashMap<String, (PathBuf, FileLock)>,
}

impl Planned {
    /// For the cache's key. What a cache holds and what a secret is do not count.
    pub(super) fn describe(&self) -> Value {
        let digest = match &self.option {
            MountOption::Bind(_) => self.content.as_ref().map(|(_, digest)| digest),
            _ => None,
        };
        json!({"option": format!("{:?}", self.option), "content": digest})
    }
}

impl StageBuilder<'_, '_> {
    /// Looks at what `--mount` options ask for, without doing it.
    pub(super) fn plan_mounts(&mut self, options: &[&str]) -> Outcome<Vec<Planned>> {
        let mut planned = Vec::new();
        for text in options {
            let cwd = self.working_dir();
            let option = MountOption::parse(text, &cwd, |word| self.expand(word))?;
            let content = match &option {
                MountOption::Bind(Bind { from, source, .. }) => {
                    Some(self.copied(from.as_deref(), source)?)
                }
                MountOption::Cache(cache) if cache.from.is_some() => {
                    Some(self.copied(cache.from.as_deref(), &cache.source)?)
                }
                _ => None,
            };
            planned.push(Planned { option, content });
        }
        Ok(planned)
    }

    /// The file or folder `path` of the context, or of the stage or image `from`.
    fn copied(&mut self, from: Option<&str>, path: &str) -> Outcome<(Copied, String)> {
        let (source, ownership) = match from {
            Some(name) => (self.other(name)?, Ownership::default()),
            None => (self.context()?, Ownership { owner: Some((0, 0)), mode: None }),
        };
        let path = normal(Path::new(path));
        let missing = || format!("there is no `{}` to mount", path.display());
        let found = source.files().resolve(&path, true)?;
        let is_folder = found.is_dir();
        if found.file.is_none() && !path.as_os_str().is_empty() || is_hidden(&source, &path) {
            return Err(missing().into());
        }
        let mut plan = CopyPlan::new(ownership, from.is_some());
        let name = (!is_folder).then(|| PathBuf::from("file"));
        if found.file.is_some() {
            let target = Target::alone(if is_folder { "" } else { "file" });
            plan.add(&source, &path, &target, &Merged::default())?;
        }
        let digest = plan.digest(&check_of(self.build.runner))?;
        Ok((Copied { plan, name: name.filter(|_| found.file.is_some()) }, hex(&digest)))
    }

    /// Makes what is to be mounted.
    pub(super) fn mount(&mut self, planned: Vec<Planned>) -> Outcome<MountedAll> {
        let mut all = MountedAll::default();
        for Planned { option, content } in planned {
            let (target, what) = match option {
                MountOption::Bind(bind) => {
                    let folder = self.folder("bind")?;
                    let source = match content {
                        Some((copied, _)) => self.make(&copied, folder)?,
                        None => folder,
                    };
                    (bind.target, Mounted::Path { source, read_only: bind.read_only })
                }
                MountOption::Cache(cache) => {
                    if !all.caches.contains_key(&cache.id) {
                        let made = self.cache_folder(&cache, content.map(|(it, _)| it))?;
                        all.caches.insert(cache.id.clone(), made);
                    }
                    let source = all.caches[&cache.id].0.clone();
                    (cache.target, Mounted::Path { source, read_only: cache.read_only })
                }
                MountOption::Tmpfs { target, size } => (target, Mounted::Memory { size }),
                MountOption::Secret(secret) => {
                    self.add_secret(secret, &mut all)?;
                    continue;
                }
            };
            all.mounts.push(StepMount { target, what });
        }
        Ok(all)
    }

    /// Puts a copy into `folder`; gives what is to be mounted of it.
    fn make(&self, copied: &Copied, folder: PathBuf) -> Outcome<PathBuf> {
        copied.plan.write(&folder, &Merged::default(), &check_of(self.build.runner))?;
        Ok(match &copied.name {
            Some(name) => folder.join(name),
            None => folder,
        })
    }
}

/// What .dockerignore names is not in the context.
fn is_hidden(source: &Source, path: &Path) -> bool {
    !path.as_os_str().is_empty() && source.is_gone(path)
}
