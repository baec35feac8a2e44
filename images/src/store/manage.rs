//! Giving names and taking them away.

use error_reporter::Report;
use oci_spec::image::Descriptor;

use super::collect::{Removed, Thoroughness};
use super::names::{full_name, name_of, with_name};
use super::{Store, lock::FileLock};
use crate::error::ImageError;

/// What [`Store::prune`] removes beside nameless images that no instance uses and what was never
/// finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Named images that no instance uses.
    pub named: bool,
    /// What build steps made.
    pub build_cache: bool,
}

impl Prune {
    /// Everything that no instance uses.
    pub const ALL: Self = Self { named: true, build_cache: true };
}

impl Store {
    /// Gives an image one more name, and returns its full form. Another image that had the name
    /// loses it.
    ///
    /// # Errors
    /// No such image, or the new name is no reference or has a digest in it.
    pub fn tag(&self, image: &str, name: &str) -> Result<String, ImageError> {
        let full = full_name(name)?;
        if full.contains('@') {
            let why = "a digest is what an image is, not a name to give".to_owned();
            return Err(ImageError::BadReference { name: name.to_owned(), why });
        }
        // Between finding it and naming it, it must not be collected.
        let _writing = self.writing()?;
        let descriptor = {
            let _reading = FileLock::shared(&self.lock_path("index"))?;
            self.find(&self.index()?, image)?
        };
        self.add_to_index(&[with_name(&descriptor, Some(full.clone()))])?;
        Ok(full)
    }

    /// Takes a name away, and with the last name the image. A digest stands for all its names,
    /// which takes `force` where there are several.
    ///
    /// # Errors
    /// No such image, it has several names, or a running instance uses it.
    pub fn remove(&self, name: &str, force: bool) -> Result<Removed, ImageError> {
        let mut untagged = Vec::new();
        {
            let lock = self.change_index()?;
            let index = self.index()?;
            let found = self.find(&index, name)?;
            let is_by_name = name_of(&found).is_some_and(|full| {
                super::names::candidates(name).is_ok_and(|names| names.contains(&full))
            });
            let same = |other: &Descriptor| other.digest() == found.digest();
            let goes = |other: &Descriptor| match is_by_name {
                true => same(other) && name_of(other) == name_of(&found),
                false => same(other),
            };
            let (gone, kept): (Vec<_>, Vec<_>) = index.manifests().iter().cloned().partition(goes);
            let names: Vec<String> = gone.iter().filter_map(name_of).collect();
            if names.len() > 1 && !force {
                return Err(ImageError::SeveralNames { name: name.to_owned(), names });
            }
            if !kept.iter().any(same) && self.in_use(&found)? {
                return Err(ImageError::InUse(name.to_owned()));
            }
            untagged.extend(names);
            self.write_index(kept, &lock)?;
        }
        // What others bring in right now, a later collection looks at.
        let collected = match self.collect_now(Thoroughness::Unreachable) {
            Err(error @ ImageError::Damaged { .. }) => {
                Removed { hindered: Some(Report::new(error).to_string()), ..Removed::default() }
            }
            other => other?.unwrap_or_default(),
        };
        Ok(Removed { untagged, ..collected })
    }

    /// Removes `what` and whatever no image needs then. Waits for pulls, loads and builds that are
    /// under way.
    ///
    /// # Errors
    /// The index or a manifest is damaged.
    pub fn prune(&self, what: Prune) -> Result<Removed, ImageError> {
        let alone = FileLock::exclusive(&self.lock_path("writers"))?;
        let mut untagged = Vec::new();
        {
            let lock = self.change_index()?;
            let mut kept = Vec::new();
            for descriptor in self.index()?.manifests() {
                let name = name_of(descriptor);
                if (name.is_some() && !what.named) || self.in_use(descriptor)? {
                    kept.push(descriptor.clone());
                } else {
                    untagged.extend(name);
                }
            }
            self.write_index(kept, &lock)?;
        }
        let thoroughness = match what.build_cache {
            true => Thoroughness::BuildCacheToo,
            false => Thoroughness::Unfinished,
        };
        let collected = self.collect(alone, thoroughness)?;
        Ok(Removed { untagged, ..collected })
    }
}
