//! COPY and ADD.

use std::path::Path;

use isolab_images::Merged;
use isolab_images::ingest::{is_archive, unpack_archive};

use super::{Fault, Outcome, StageBuilder};
use crate::context::{Ignored, Source, normal};
use crate::copy::{CopyPlan, Ownership, Target};
use crate::dockerfile::here::{self, HereDocument};
use crate::dockerfile::{Instruction, Keyword, arguments};
use crate::{owner, words};

/// What the options of COPY and ADD say.
#[derive(Default)]
struct Options {
    chown: Option<(u32, u32)>,
    ownership: Ownership,
    /// Another stage or image: COPY's `--from`.
    from: Option<Source>,
    parents: bool,
    excluded: Vec<String>,
    /// The digest that the content must have: ADD's `--checksum`.
    checksum: Option<String>,
    /// ADD's `--unpack`, where it is given.
    unpack: Option<bool>,
}

impl StageBuilder<'_, '_> {
    pub(super) fn transfer(&mut self, it: &Instruction) -> Outcome {
        let is_add = it.keyword == Keyword::Add;
        let image = Merged::new(self.folders()?);
        let mut options = self.options(it, &image)?;
        let (mut named, has_documents) = match arguments::json(&it.arguments) {
            Some(words) => (words, false),
            None => (words::split(&it.arguments, self.escape), true),
        };
        let Some(target) = named.pop().filter(|_| !named.is_empty()) else {
            return Err("sources and a target are needed".into());
        };
        let workdir = self.stage.config.text("WorkingDir").to_owned();
        let mut target = Target::new(&self.expand(&target)?, &workdir, &image)?;
        // With several sources, and with folders above them, it can only be one.
        target.names_folder |= options.parents;
        let is_from = options.from.is_some();
        let source = match options.from.take() {
            Some(source) => source,
            None => self.context()?,
        };
        if !is_from {
            options.ownership.owner.get_or_insert((0, 0));
        }
        let excluded = Ignored::of_patterns(options.excluded.iter().map(String::as_str))?;
        let mut plan = CopyPlan::new(options.ownership.clone(), is_from).excluding(excluded);
        let mut documents = it.documents.iter();
        let mut count = 0;
        for name in &named {
            if has_documents && here::beginning(name).is_some() {
                let document = documents.next().ok_or("a here-document is missing")?;
                count += 1;
                self.add_document(document, &mut plan, &target, &image)?;
                continue;
            }
            let pattern = self.expand(name)?;
            if is_add && is_repository(&pattern) {
                let hint = "clone it before the build and COPY the folder";
                return Err(format!("ADD of a repository is not supported; {hint}").into());
            }
            if is_add && is_url(&pattern) {
                count += 1;
                self.add_remote(&pattern, &options, &mut plan, &target, &image)?;
                continue;
            }
            if options.checksum.is_some() {
                return Err("--checksum is for URLs".into());
            }
            let matching = source.matching(&pattern)?;
            if matching.is_empty() {
                let what = format!("there is no `{pattern}` in what is copied from");
                return Err(format!("{what} (.dockerignore counts)").into());
            }
            let pivot = pivot_of(&pattern);
            for path in matching {
                count += 1;
                let unpacks = is_add && options.unpack != Some(false);
                if unpacks && let Some(tree) = self.unpacked(&source, &path)? {
                    plan.set_owner(options.chown);
                    plan.add(&tree, Path::new(""), &target, &image)?;
                    plan.set_owner(options.ownership.owner);
                } else if options.parents {
                    plan.add_with_parents(&source, &path, pivot, &target, &image)?;
                } else {
                    plan.add(&source, &path, &target, &image)?;
                }
            }
        }
        if count > 1 && !target.names_folder && !target.is_folder(&image)? {
            return Err("several files go into a folder: end its name with `/`".into());
        }
        self.write(&plan, &image, &it.text)
    }

    fn options(&mut self, it: &Instruction, image: &Merged) -> Outcome<Options> {
        let is_add = it.keyword == Keyword::Add;
        let mut options = Options::default();
        for option in &it.options {
            let value = option.value.as_ref().map(|value| self.expand(value)).transpose()?;
            let name = option.name.as_str();
            match (name, value) {
                ("chown", Some(value)) => options.chown = Some(owner::resolve(&value, image)?),
                ("chmod", Some(value)) => options.ownership.mode = Some(value.parse()?),
                ("from", Some(value)) if !is_add => options.from = Some(self.other(&value)?),
                ("exclude", Some(value)) => options.excluded.push(value),
                ("parents", value) if !is_add => options.parents = is_on(name, value)?,
                ("checksum", Some(value)) if is_add => options.checksum = Some(value),
                ("unpack", value) if is_add => options.unpack = Some(is_on(name, value)?),
                // Without effect on the files that there are in the end.
                ("link", value) => drop(is_on(name, value)?),
                (other, _) => return Err(format!("unknown option --{other}").into()),
            }
        }
        options.ownership.owner = options.chown;
        Ok(options)
    }

    /// A document is called as its end where it goes into a folder.
    fn add_document(
        &self,
        document: &HereDocument,
        plan: &mut CopyPlan,
        target: &Target,
        image: &Merged,
    ) -> Outcome {
        let text = self.here_document(document)?;
        let place = match target.names_folder || target.is_folder(image)? {
            true => target.path.join(normal(Path::new(document.name()))),
            false => target.path.clone(),
        };
        plan.add_text(place, text);
        Ok(())
    }

    fn here_document(&self, document: &HereDocument) -> Outcome<String> {
        if !document.expands() {
            return Ok(document.content());
        }
        // Quotes are plain text in a here-document (POSIX shell, 2.7.4).
        let text = format!("\"{}\"", document.content().replace('"', "\\\""));
        words::expand(&text, '\\', &|name| self.lookup(name)).map_err(Fault::Why)
    }

    fn add_remote(
        &mut self,
        url: &str,
        options: &Options,
        plan: &mut CopyPlan,
        target: &Target,
        image: &Merged,
    ) -> Outcome {
        let remote = self.fetch(url, options.checksum.as_deref())?;
        if options.unpack == Some(true) && is_archive(&remote.file)? {
            let tree = self.folder("archive")?;
            unpack_archive(url, &remote.file, &tree)?;
            plan.set_owner(options.chown);
            plan.add(&Source::layers(vec![tree]), Path::new(""), target, image)?;
            plan.set_owner(options.ownership.owner);
            return Ok(());
        }
        let place = match target.names_folder || target.is_folder(image)? {
            false => target.path.clone(),
            true => match remote.name {
                Some(name) => target.path.join(name),
                None => return Err("the URL has no file's name; give one in the target".into()),
            },
        };
        let metadata = remote.file.symlink_metadata()?;
        Ok(plan.add_file(remote.file, metadata, place)?)
    }

    /// A local archive's content, which ADD takes for it. None where it is none.
    fn unpacked(&mut self, source: &Source, path: &Path) -> Outcome<Option<Source>> {
        let Some((file, metadata)) = source.files().resolve(path, true)?.file else {
            return Ok(None);
        };
        if !metadata.is_file() || !is_archive(&file)? {
            return Ok(None);
        }
        let tree = self.folder("archive")?;
        unpack_archive(&path.to_string_lossy(), &file, &tree)?;
        Ok(Some(Source::layers(vec![tree])))
    }
}

/// Of an option that is on where it stands alone.
fn is_on(name: &str, value: Option<String>) -> Outcome<bool> {
    match value.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("--{name}={other} is neither true nor false").into()),
    }
}

/// How many parts of a path stand before `/./`, which `--parents` does not keep.
fn pivot_of(pattern: &str) -> usize {
    let before = pattern.split_once("/./").map_or("", |(before, _)| before);
    normal(Path::new(before)).components().count()
}

fn is_url(name: &str) -> bool {
    let scheme = name.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| ["http", "https"].contains(&scheme.as_str()))
}

/// As BuildKit tells them: a scheme of git's, `USER@HOST:PATH`, or a URL of something `.git`.
fn is_repository(name: &str) -> bool {
    let path = name.split('#').next().unwrap_or(name);
    let is_of_git = name.starts_with("git://") || name.starts_with("ssh://");
    let host = name.split_once(':').map(|(host, _)| host);
    is_of_git
        || is_url(name) && path.ends_with(".git")
        || host.is_some_and(|host| host.contains('@') && !host.contains('/'))
}
