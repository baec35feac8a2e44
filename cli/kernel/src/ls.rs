//! `isolab kernel ls`

use anyhow::Result;
use clap::Args;
use isolab_command::format::{Format, bytes};
use isolab_guest::kernel_cache::{CachedKernel, KernelCache};
use isolab_images::disk_usage;
use serde_json::{Value, json};

/// List the guest kernels of this host.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab kernel ls --format json | jq -r '.[].image'")]
pub struct Ls {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(cache: &KernelCache, args: &Ls) -> Result<()> {
    print(&cache.list()?, args.format)
}

/// Prints kernels that are there.
pub fn print(kernels: &[CachedKernel], format: Format) -> Result<()> {
    if format == Format::Json {
        let kernels: Vec<_> = kernels.iter().map(facts).collect();
        println!("{}", serde_json::to_string_pretty(&kernels)?);
        return Ok(());
    }
    let name = kernels.iter().map(|kernel| kernel.name.len()).max().unwrap_or(0).max(4);
    let release_of = |kernel: &CachedKernel| kernel.release.clone().unwrap_or_default();
    let release = kernels.iter().map(|kernel| release_of(kernel).len()).max().unwrap_or(0).max(7);
    println!("{:name$}  {:release$}  {:>9}  IMAGE", "NAME", "RELEASE", "SIZE");
    for kernel in kernels {
        let (size, image) = (bytes(disk_usage(&kernel.folder)), kernel.image.display());
        println!("{:name$}  {:release$}  {size:>9}  {image}", kernel.name, release_of(kernel));
    }
    Ok(())
}

fn facts(kernel: &CachedKernel) -> Value {
    json!({
        "name": kernel.name,
        "release": kernel.release,
        "image": kernel.image,
        "size": disk_usage(&kernel.folder),
        "in_use": kernel.in_use,
    })
}
