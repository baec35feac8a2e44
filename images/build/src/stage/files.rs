//! WORKDIR, and where COPY and ADD take files from.

use std::path::{Path, PathBuf};

use isolab_images::Merged;
use serde_json::json;

use super::{Outcome, StageBuilder, folders};
use crate::context::{self, Source};
use crate::copy::{CopyPlan, Ownership};
use crate::owner;

impl StageBuilder<'_, '_> {
    /// The folder is the user's who is in force, as with BuildKit, where it has to be made.
    pub(super) fn workdir(&mut self, argument: &str, text: &str) -> Outcome {
        let dir = self.expand(argument)?;
        let dir = Path::new("/").join(self.stage.config.text("WorkingDir")).join(dir.trim());
        let dir = Path::new("/").join(context::normal(&dir));
        let Some(name) = dir.to_str() else { return Err("the path is no UTF-8".into()) };
        self.stage.config.set("WorkingDir", json!(name));
        let image = Merged::new(self.folders()?);
        let found = image.resolve(&dir, true)?;
        let is_made = found.file.is_none() && !found.path.as_os_str().is_empty();
        let owner = match self.stage.config.text("User") {
            user if user.is_empty() || !is_made => None,
            user => Some(owner::resolve(user, &image)?),
        };
        let mut plan = CopyPlan::new(Ownership { owner, mode: None }, false);
        match found.file {
            Some((_, metadata)) if !metadata.is_dir() => {
                return Err(format!("{name} is no folder").into());
            }
            _ if is_made => plan.add_folder(found.path),
            _ => {}
        }
        self.write(&plan, &image, text)
    }

    /// The build's context, as a source to copy from.
    pub(super) fn context(&self) -> Outcome<Source> {
        Ok(Source::context(&self.build.request.context, &self.ignore_file())?)
    }

    /// Another stage or image to copy from.
    pub(super) fn other(&mut self, name: &str) -> Outcome<Source> {
        if let Some(number) = self.build.stage_named(name, self.number) {
            let stage = self.build.stage(number)?;
            return Ok(Source::layers(folders(self.build.store, &stage.layers)?));
        }
        if name == "scratch" {
            return Ok(Source::layers(Vec::new()));
        }
        let image = self.build.base(name)?;
        Ok(Source::layers(image.layers_unpacked()?))
    }

    /// The Dockerfile's own `NAME.dockerignore` counts before the context's, of which podman's
    /// `.containerignore` is the first.
    fn ignore_file(&self) -> PathBuf {
        let mut own = self.build.path.as_os_str().to_owned();
        own.push(".dockerignore");
        let context = &self.build.request.context;
        let files = [PathBuf::from(own), context.join(".containerignore")];
        files.into_iter().find(|file| file.exists()).unwrap_or(context.join(".dockerignore"))
    }
}
