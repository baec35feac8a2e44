//! COPY, ADD and WORKDIR.

use std::path::{Path, PathBuf};

use parse_dockerfile::{Flag, HereDoc, Source as Named, UnescapedString};
use serde_json::json;

use super::{Fault, Outcome, StageBuilder, folders};
use crate::build::context::{self, Source};
use crate::build::copy::{Ownership, Plan, Target};
use crate::build::merged::Merged;
use crate::build::{owner, words};
use crate::unpack;

impl StageBuilder<'_, '_, '_> {
    pub(super) fn workdir(&mut self, argument: &str, text: &str) -> Outcome {
        let dir = self.expand(argument)?;
        let dir = Path::new("/").join(self.stage.config.text("WorkingDir")).join(dir.trim());
        let dir = Path::new("/").join(context::normal(&dir));
        let Some(name) = dir.to_str() else { return Err("the path is no UTF-8".into()) };
        self.stage.config.set("WorkingDir", json!(name));
        let image = Merged::new(self.folders()?);
        let found = image.resolve(&dir, true)?;
        let mut plan = Plan::new(Ownership::default(), false);
        match found.file {
            Some((_, metadata)) if metadata.is_dir() => {}
            Some(_) => return Err(format!("{name} is no folder").into()),
            None if found.path.as_os_str().is_empty() => {}
            None => plan.add_folder(found.path),
        }
        self.write(&plan, &image, text)
    }

    pub(super) fn copy(
        &mut self,
        options: &[Flag<'_>],
        sources: &[Named<'_>],
        target: &UnescapedString<'_>,
        is_add: bool,
        text: &str,
    ) -> Outcome {
        let image = Merged::new(self.folders()?);
        let mut ownership = Ownership::default();
        let mut source = None;
        for option in options {
            let value = option.value.as_ref().map(|value| self.expand(&value.value)).transpose()?;
            match (option.name.value.as_ref(), value) {
                ("chown", Some(value)) => ownership.owner = Some(owner::resolve(&value, &image)?),
                ("chmod", Some(value)) => ownership.mode = Some(mode(&value)?),
                ("from", Some(value)) if !is_add => source = Some(self.other(&value)?),
                // Without effect on the files that there are in the end.
                ("link", None) => {}
                ("link", Some(value)) if value == "true" || value == "false" => {}
                (other, _) => return Err(format!("unknown option --{other}").into()),
            }
        }
        let (is_from, chown) = (source.is_some(), ownership.owner);
        let source = match source {
            Some(source) => source,
            None => {
                ownership.owner.get_or_insert((0, 0));
                let context = &self.build.request.context;
                Source::context(context, &self.ignore_file())?
            }
        };
        let workdir = self.stage.config.text("WorkingDir").to_owned();
        let target = Target::new(&self.expand(&target.value)?, &workdir, &image)?;
        let mut plan = Plan::new(ownership, is_from);
        let mut count = 0;
        for named in sources {
            let pattern = match named {
                Named::Path(path) => self.expand(&path.value)?,
                Named::HereDoc(document) => {
                    count += 1;
                    let text = self.here_document(document)?;
                    if target.names_folder || target.is_folder(&image)? {
                        return Err("a here-document needs a file's name to go to".into());
                    }
                    plan.add_text(target.path.clone(), text);
                    continue;
                }
                _ => return Err("this source is not supported".into()),
            };
            if is_add && pattern.contains("://") {
                let mend = "fetch it before the build and ADD or COPY the file";
                return Err(format!("ADD of a URL is not supported; {mend}").into());
            }
            if is_add && is_repository(&pattern) {
                let mend = "clone it before the build and COPY the folder";
                return Err(format!("ADD of a repository is not supported; {mend}").into());
            }
            let matching = source.matching(&pattern)?;
            if matching.is_empty() {
                let what = format!("there is no `{pattern}` in what is copied from");
                return Err(format!("{what} (.dockerignore counts)").into());
            }
            for path in matching {
                count += 1;
                if is_add && let Some(tree) = self.unpacked(&source, &path)? {
                    plan.set_owner(chown);
                    plan.add(&tree, Path::new(""), &target, &image)?;
                    plan.set_owner(ownership.owner);
                } else {
                    plan.add(&source, &path, &target, &image)?;
                }
            }
        }
        if count > 1 && !target.names_folder && !target.is_folder(&image)? {
            return Err("several files go into a folder: end its name with `/`".into());
        }
        self.write(&plan, &image, text)
    }

    /// A local archive's content, which ADD takes for it. None where it is none.
    fn unpacked(&mut self, source: &Source, path: &Path) -> Outcome<Option<Source>> {
        let Some((file, metadata)) = source.files().resolve(path, true)?.file else {
            return Ok(None);
        };
        if !metadata.is_file() || !unpack::is_archive(&file)? {
            return Ok(None);
        }
        let tree = self.folder("archive")?;
        unpack::unpack_archive(&path.to_string_lossy(), &file, &tree)?;
        Ok(Some(Source::layers(vec![tree])))
    }

    /// Another stage or image to copy from.
    fn other(&mut self, name: &str) -> Outcome<Source> {
        if let Some(number) = self.build.stage_named(name, self.number) {
            let stage = self.build.stage(number)?;
            return Ok(Source::layers(folders(self.build.store, &stage.layers)?));
        }
        let image = self.build.base(name)?;
        Ok(Source::layers(image.layers_unpacked()?))
    }

    /// The Dockerfile's own `NAME.dockerignore` counts before the context's.
    fn ignore_file(&self) -> PathBuf {
        let mut own = self.build.path.as_os_str().to_owned();
        own.push(".dockerignore");
        let own = PathBuf::from(own);
        if own.exists() { own } else { self.build.request.context.join(".dockerignore") }
    }

    fn here_document(&self, document: &HereDoc<'_>) -> Outcome<String> {
        if !document.expand {
            return Ok(document.value.to_string());
        }
        // Quotes are plain text in a here-document (POSIX shell, 2.7.4).
        let mut text = document.value.replace('"', "\\\"");
        text = format!("\"{text}\"");
        words::expand(&text, '\\', &|name| self.lookup(name)).map_err(Fault::Why)
    }
}

/// As git writes a repository on another host without a scheme: `USER@HOST:PATH`.
fn is_repository(name: &str) -> bool {
    let host = name.split_once(':').map(|(host, _)| host);
    host.is_some_and(|host| host.contains('@') && !host.contains('/'))
}

fn mode(text: &str) -> Outcome<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("--chmod={text}: give the mode in octal digits, such as 755").into()),
    }
}
