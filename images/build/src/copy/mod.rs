//! COPY and ADD: which files go where.
//!
//! A [`CopyPlan`] is made of sources first; `digest` says what it comes to, for the cache, and `write`
//! puts it into a layer.

mod digest;
mod files;
mod write;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use isolab_images::Merged;

use super::chmod::ModeChange;
use super::context::{Ignored, Source, normal};

/// How files are given to the image.
#[derive(Clone, Debug, Default)]
pub(super) struct Ownership {
    /// `--chown`, or root for files of the context; none keeps the source's, as for files of
    /// other images and of archives.
    pub(super) owner: Option<(u32, u32)>,
    /// What `--chmod` says; without it, modes stay.
    pub(super) mode: Option<ModeChange>,
}

/// The files that one instruction copies, by their places in the image.
pub(super) struct CopyPlan {
    items: BTreeMap<PathBuf, Item>,
    ownership: Ownership,
    /// `--exclude`; of paths below what an instruction names.
    excluded: Ignored,
    /// Extended attributes go along from other images, not from the host's context.
    with_attributes: bool,
}

enum Item {
    /// A file of a source, of any kind.
    File { file: PathBuf, metadata: Metadata, owner: (u32, u32) },
    /// The content of a here-document.
    Text(String),
    /// A folder that must be there; WORKDIR.
    Folder,
}

impl CopyPlan {
    pub(super) fn new(ownership: Ownership, with_attributes: bool) -> Self {
        let (items, excluded) = (BTreeMap::new(), Ignored::default());
        Self { items, ownership, excluded, with_attributes }
    }

    pub(super) fn excluding(self, excluded: Ignored) -> Self {
        Self { excluded, ..self }
    }

    /// Gives what is added from here on to others.
    pub(super) fn set_owner(&mut self, owner: Option<(u32, u32)>) {
        self.ownership.owner = owner;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Makes `path`, resolved already, a folder.
    pub(super) fn add_folder(&mut self, path: PathBuf) {
        self.items.entry(path).or_insert(Item::Folder);
    }

    pub(super) fn add_text(&mut self, target: PathBuf, text: String) {
        self.items.insert(target, Item::Text(text));
    }

    /// Adds the file or folder `path` of `source`. A folder's content goes to `target`; a file
    /// goes to `target`, or below it where that is a folder.
    pub(super) fn add(
        &mut self,
        source: &Source,
        path: &Path,
        target: &Target,
        image: &Merged,
    ) -> io::Result<()> {
        let found = source.files().resolve(path, true)?;
        let Some((file, metadata)) = found.file else {
            return Err(io::Error::other(format!("{} leads nowhere", path.display())));
        };
        if metadata.is_dir() {
            if !target.is_folder(image)? {
                self.add_folder(target.path.clone());
            }
            let content = Content { source, excluded_below: found.path.clone() };
            return self.add_content(&content, &found.path, &target.path, image);
        }
        let name = Path::new(path.file_name().unwrap_or(OsStr::new("")));
        if self.excluded.matches(name) {
            return Ok(());
        }
        let target = match target.names_folder || target.is_folder(image)? {
            true => target.path.join(name),
            false => target.path.clone(),
        };
        self.add_file(file, metadata, target)
    }

    /// `--parents`: adds `path` of `source` at its place below the folder `target`, less the
    /// first `pivot` parts of it, with the folders above it.
    pub(super) fn add_with_parents(
        &mut self,
        source: &Source,
        path: &Path,
        pivot: usize,
        target: &Target,
        image: &Merged,
    ) -> io::Result<()> {
        let base: PathBuf = path.components().take(pivot).collect();
        let below = path.strip_prefix(&base).unwrap_or(path);
        if self.excluded.matches(below) {
            return Ok(());
        }
        let mut folders: Vec<&Path> = below.ancestors().filter(|p| *p != Path::new("")).collect();
        folders.reverse();
        for folder in folders {
            let found = source.files().resolve(&base.join(folder), true)?;
            let is_folder = found.is_dir();
            let Some((file, metadata)) = found.file else { continue };
            let place = image.resolve(&target.path.join(folder), true)?.path;
            if !is_folder {
                self.add_file(file, metadata, place)?;
                continue;
            }
            // A folder of the image stays as it is, but for the one that is named.
            if folder == below || image.stat(&place)?.is_none() {
                self.add_file(file, metadata, place.clone())?;
            }
            if folder == below {
                let content = Content { source, excluded_below: base.clone() };
                self.add_content(&content, &found.path, &place, image)?;
            }
        }
        Ok(())
    }

    /// A file of ours, whoever's it is.
    pub(super) fn add_file(
        &mut self,
        file: PathBuf,
        metadata: Metadata,
        target: PathBuf,
    ) -> io::Result<()> {
        if metadata.file_type().is_socket() {
            return Ok(());
        }
        let owner = self.ownership.owner.unwrap_or((metadata.uid(), metadata.gid()));
        self.items.insert(target, Item::File { file, metadata, owner });
        Ok(())
    }

    fn add_content(
        &mut self,
        content: &Content<'_>,
        folder: &Path,
        target: &Path,
        image: &Merged,
    ) -> io::Result<()> {
        let source = content.source;
        for name in source.files().list(folder)? {
            let path = folder.join(&name);
            let left_out = source.is_ignored(&path) || self.excludes(content, &path);
            let Some((file, metadata)) = source.files().stat(&path)? else { continue };
            let mut target = target.join(&name);
            if !metadata.is_dir() {
                if !left_out {
                    self.add_file(file, metadata, target)?;
                }
                continue;
            }
            // `lib` onto a link `lib` -> `usr/lib` goes into the folder that the link names.
            let found = image.resolve(&target, true)?;
            if found.is_dir() {
                target = found.path;
            }
            if !left_out {
                self.add_file(file, metadata, target.clone())?;
            }
            if !left_out || source.has_exceptions() || self.excluded.has_exceptions() {
                self.add_content(content, &path, &target, image)?;
            }
        }
        Ok(())
    }

    fn excludes(&self, content: &Content<'_>, path: &Path) -> bool {
        self.excluded.matches(path.strip_prefix(&content.excluded_below).unwrap_or(path))
    }

    fn mode(&self, metadata: &Metadata) -> u32 {
        self.mode_of(metadata.mode() & 0o7777, metadata.is_dir())
    }

    fn mode_of(&self, mode: u32, is_folder: bool) -> u32 {
        self.ownership.mode.as_ref().map_or(mode, |change| change.apply(mode, is_folder))
    }
}

/// What an instruction names of a source.
struct Content<'a> {
    source: &'a Source,
    /// The folder that `--exclude` is relative to.
    excluded_below: PathBuf,
}

/// Where an instruction copies to.
pub(super) struct Target {
    /// Resolved in the image.
    pub(super) path: PathBuf,
    /// Whether it is written as a folder, with a slash at its end.
    pub(super) names_folder: bool,
}

impl Target {
    /// `text` as it stands in the Dockerfile, relative to `workdir`.
    pub(super) fn new(text: &str, workdir: &str, image: &Merged) -> io::Result<Self> {
        let names_folder = text.ends_with('/') || text.ends_with("/.") || text == ".";
        let path = normal(&Path::new("/").join(workdir).join(text));
        Ok(Self { path: image.resolve(&path, true)?.path, names_folder })
    }

    /// The root of a folder of its own, and a name in it for what is no folder.
    pub(super) fn alone(name: &str) -> Self {
        Self { path: PathBuf::from(name), names_folder: false }
    }

    pub(super) fn is_folder(&self, image: &Merged) -> io::Result<bool> {
        if self.path.as_os_str().is_empty() {
            return Ok(true);
        }
        Ok(image.stat(&self.path)?.is_some_and(|(_, metadata)| metadata.is_dir()))
    }
}
