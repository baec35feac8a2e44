//! `isolab kernel fetch`

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use isolab_command::format::Format;
use isolab_guest::kernel_cache::{KernelCache, cache_dir};

use crate::apt::Apt;
use crate::ls;
use crate::tool::{self, Need};

/// Download Debian's kernels, with their modules; one that is there already stays as it is.
///
/// They come from the archive that this host's apt knows, and apt verifies them. Nothing is
/// installed, and no root is needed.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  isolab kernel fetch\n  isolab run --isolation paravirt --kernel cloud busybox uname -r"
)]
pub struct Fetch {
    /// The kernels to fetch; by default both.
    #[arg(value_enum, default_values = ["stock", "cloud"])]
    kernels: Vec<Stock>,
    /// How to print what is there then.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A kernel of Debian's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stock {
    /// Debian's linux-image-amd64, for every machine.
    Stock,
    /// Debian's linux-image-cloud-amd64, for virtual machines: it has no IDE drivers.
    Cloud,
}

impl Stock {
    fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Cloud => "cloud",
        }
    }

    fn metapackage(self) -> &'static str {
        match self {
            Self::Stock => "linux-image-amd64",
            Self::Cloud => "linux-image-cloud-amd64",
        }
    }
}

pub fn run(cache: &KernelCache, args: &Fetch) -> Result<()> {
    let is_there = |name: &str, kernels: &[_]| {
        kernels.iter().any(|kernel: &isolab_guest::kernel_cache::CachedKernel| kernel.name == name)
    };
    for stock in &args.kernels {
        if !is_there(stock.name(), &cache.list()?) {
            fetch(cache, *stock)
                .with_context(|| format!("cannot fetch the kernel {}", stock.name()))?;
        }
    }
    let wanted = |name: &str| args.kernels.iter().any(|stock| stock.name() == name);
    let kernels = cache.list()?.into_iter().filter(|kernel| wanted(&kernel.name));
    ls::print(&kernels.collect::<Vec<_>>(), args.format)
}

fn fetch(cache: &KernelCache, stock: Stock) -> Result<()> {
    tool::require(&[Need("dpkg-deb", "dpkg"), Need("depmod", "kmod")])?;
    let new = cache.begin(stock.name())?;
    let archive =
        Apt::with(&cache_dir().join("apt"), |apt| match apt.behind(stock.metapackage())? {
            Some(package) => apt.download(&package, new.work()),
            None => Ok(None),
        })?;
    let missing = || format!("the archive has no {}; is it Debian's?", stock.metapackage());
    let archive = archive.with_context(missing)?;
    let root = new.work().join("root");
    let mut unpack = tool::command("dpkg-deb", "dpkg")?;
    unpack.arg("-x").arg(&archive).arg(&root);
    tool::run(unpack)?;
    let made = new.work().join("kernel");
    arrange(&root, &made)
        .with_context(|| format!("{} is not as Debian makes it", archive.display()))?;
    new.publish(&made, stock.name())?;
    Ok(())
}

/// Makes the folder of the cache from what a package has.
fn arrange(package: &Path, kernel: &Path) -> Result<()> {
    let boot = package.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let release = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned)).next();
    let release = release.context("there is no vmlinuz in it")?;
    let modules = kernel.join("modules/lib/modules");
    let folder = modules.parent().unwrap_or(kernel);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let moved = |from: &Path, to: &Path| {
        fs::rename(from, to).with_context(|| format!("cannot move {}", from.display()))
    };
    for file in ["vmlinuz", "config", "System.map"] {
        moved(&boot.join(format!("{file}-{release}")), &kernel.join(file))?;
    }
    moved(&package.join("lib/modules"), &modules)?;
    let mut depmod = tool::command("depmod", "kmod")?;
    depmod.arg("-b").arg(kernel.join("modules")).arg(OsStr::new(&release));
    tool::run(depmod)?;
    fs::write(kernel.join("version"), format!("{release}\n")).context("cannot write its release")
}
