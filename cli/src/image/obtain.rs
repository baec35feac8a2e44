//! The image of `isolab run`: from the store, or from its registry.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use isolab_images::{Image, ImageError, Store};

use super::registry::Access;

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Each time.
    Always,
    /// When it is not in the store.
    #[default]
    Missing,
    /// Never: it has to be in the store.
    Never,
}

/// Where the image comes from.
#[derive(Debug, Args)]
pub struct Obtain {
    /// When to fetch the image from its registry.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pull: Policy,
    /// Show no progress bars while the image is fetched.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    access: Access,
}

impl Obtain {
    /// Finds the image, or fetches it.
    pub fn image(&self, store: &Store, name: &str) -> Result<Image> {
        let pull = || self.access.run(self.quiet, |options| store.pull(name, options));
        match self.pull {
            Policy::Always => pull(),
            Policy::Never => Ok(store.resolve(name)?),
            Policy::Missing => match store.resolve(name) {
                // A digest alone says nothing of a registry.
                Err(error @ ImageError::NotFound(_)) if name.starts_with("sha256:") => {
                    Err(error.into())
                }
                Err(ImageError::NotFound(_)) => {
                    pull().with_context(|| format!("there is no image `{name}` here"))
                }
                other => Ok(other?),
            },
        }
    }
}
