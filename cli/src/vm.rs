//! `isolab vm`: the virtual machine monitor by itself, without images and levels.

mod control;
mod keys;
mod run;
mod serial;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use isolab_vmm::boot::kernel::Kernel;
use isolab_vmm::boot::kernel_cache::KernelCache;

/// Run virtual machines directly.
#[derive(Debug, Args)]
pub struct Vm {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    ExtractVmlinux(ExtractVmlinux),
    #[command(flatten)]
    Control(control::Command),
}

/// Decompress a bzImage into the cache, so that its first start is as quick as any later one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab vm extract-vmlinux /boot/vmlinuz")]
struct ExtractVmlinux {
    /// The bzImage to decompress.
    kernel: PathBuf,
}

/// Runs `isolab vm`.
///
/// # Errors
/// What the operator should read.
pub fn run(vm: Vm) -> Result<ExitCode> {
    match vm.command {
        Command::Run(options) => run::run(*options),
        Command::Control(command) => control::run(command),
        Command::ExtractVmlinux(options) => {
            Kernel::open(&options.kernel, KernelCache::new(None).as_ref())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
