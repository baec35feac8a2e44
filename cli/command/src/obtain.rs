//! The image of `isolab run`: from the store, or from its registry.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use crate::fetch::{Access, Policy};
use crate::logging::Logging;
use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_guest::package;
use isolab_images::{Image, ImageError, Store};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Where the image comes from.
#[derive(Debug, Default, Args)]
pub struct Obtain {
    /// When to fetch the image from its registry.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub pull: Policy,
    /// Show no progress bars while the image is fetched.
    #[arg(long, short)]
    pub quiet: bool,
    /// How registries are reached.
    #[command(flatten)]
    pub access: Access,
}

impl Obtain {
    /// Finds the image, or has it fetched or unpacked by `isolab-image`, which logs as we do and is the one
    /// that reads archives. None where that failed, which it has told.
    pub fn image(&self, store: &Store, name: &str, logging: &Logging) -> Result<Option<Image>> {
        let is_there = match (self.pull, store.resolve(name)) {
            // A digest alone says nothing of a registry.
            (Policy::Missing, Err(ImageError::NotFound(_))) if !name.starts_with("sha256:") => self
                .bring(self.pull, name, logging)
                .with_context(|| format!("there is no image `{name}` here"))?,
            (Policy::Always, _) => self.bring(self.pull, name, logging)?,
            (_, found) => {
                let image = found?;
                match image.layers() {
                    Err(ImageError::NotUnpacked(digest)) => {
                        self.bring(Policy::Never, &digest, logging)?
                    }
                    _ => return Ok(Some(image)),
                }
            }
        };
        Ok(if is_there { Some(store.resolve(name)?) } else { None })
    }

    /// Has the image fetched, if need be, and unpacked. False where that failed.
    fn bring(&self, policy: Policy, name: &str, logging: &Logging) -> Result<bool> {
        let path = package::executable("isolab-image")?;
        let mut command = Command::new(&path);
        let policy = match policy {
            Policy::Always => "always",
            Policy::Missing => "missing",
            Policy::Never => "never",
        };
        command.args(logging.to_arguments()).args(["pull", "--unpack", "--policy", policy]);
        command.args(self.access.to_arguments());
        if self.quiet {
            command.arg("--quiet");
        }
        // Standard output is the workload's.
        command.arg("--").arg(name).stdin(Stdio::null()).stdout(Stdio::null());
        let parent = getpid();
        let end_with_parent = move || {
            set_pdeathsig(Signal::SIGTERM)?;
            if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        };
        // SAFETY: the closure makes system calls and nothing else: it neither allocates nor locks.
        unsafe { command.pre_exec(end_with_parent) };
        let status =
            command.status().with_context(|| format!("cannot execute {}", path.display()))?;
        if let Some(signal) = status.signal() {
            bail!("isolab-image was ended by signal {signal}");
        }
        Ok(status.success())
    }
}
