//! The image of `isolab run`: from the store, or from its registry.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_command::fetch::{Access, Policy};
use isolab_command::logging::Logging;
use isolab_command::program;
use isolab_images::{Image, ImageError, Store};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

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
    /// Finds the image, or has it fetched, which logs as we do. None where that failed, which
    /// `isolab-image` has told.
    pub fn image(&self, store: &Store, name: &str, logging: &Logging) -> Result<Option<Image>> {
        match (self.pull, store.resolve(name)) {
            // A digest alone says nothing of a registry.
            (Policy::Missing, Err(ImageError::NotFound(_))) if !name.starts_with("sha256:") => {
                let fetched = self.fetch(name, logging);
                if !fetched.with_context(|| format!("there is no image `{name}` here"))? {
                    return Ok(None);
                }
            }
            (Policy::Always, _) => {
                if !self.fetch(name, logging)? {
                    return Ok(None);
                }
            }
            (_, found) => return Ok(Some(found?)),
        }
        Ok(Some(store.resolve(name)?))
    }

    fn fetch(&self, name: &str, logging: &Logging) -> Result<bool> {
        let path = program::find("isolab-image")?;
        let mut command = Command::new(&path);
        let policy = if self.pull == Policy::Always { "always" } else { "missing" };
        command.args(logging.to_arguments()).args(["pull", "--policy", policy]);
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
