//! The `isolab-kernel` executable, which `isolab kernel` becomes: guest kernels for the VM levels.

#[macro_use]
extern crate isolab_command;

mod apt;
mod build;
mod compile;
mod fetch;
mod ls;
mod tool;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_guest::kernel_cache::KernelCache;
use isolab_link as _;

/// Bring guest kernels for the VM levels, and list them.
///
/// They are kept in ${XDG_CACHE_HOME:-~/.cache}/isolab/kernels. A host's own /boot is never touched.
#[derive(Parser)]
#[command(name = "isolab-kernel", bin_name = "isolab kernel", version)]
struct Kernel {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Ls(ls::Ls),
    Fetch(fetch::Fetch),
    Build(build::Build),
}

fn main() -> ExitCode {
    isolab_command::run::<Kernel>()
}

impl Executable for Kernel {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        let cache = KernelCache::open_default();
        match &self.command {
            Command::Ls(args) => ls::run(&cache, args)?,
            Command::Fetch(args) => fetch::run(&cache, args)?,
            Command::Build(args) => build::run(&cache, args)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
