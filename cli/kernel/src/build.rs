//! `isolab kernel build`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_command::format::Format;
use isolab_guest::kernel_cache::{KernelCache, NewKernel, cache_dir};
use sha2::{Digest, Sha256};

use crate::apt::{Apt, Package};
use crate::compile::compile;
use crate::ls;
use crate::tool::{self, Need};

/// The options that the slim kernel has beside those of allnoconfig.
const CONFIG: &str = include_str!("../slim.config");
const SOURCE: &str = "linux-source-6.1";
const NAME: &str = "slim";

const NEEDS: [Need; 12] = [
    Need("make", "make"),
    Need("gcc", "gcc"),
    Need("ld", "binutils"),
    Need("flex", "flex"),
    Need("bison", "bison"),
    Need("bc", "bc"),
    Need("xz", "xz-utils"),
    Need("lz4", "lz4"),
    Need("cpio", "cpio"),
    Need("dpkg-deb", "dpkg"),
    Need("/usr/include/libelf.h", "libelf-dev"),
    Need("/usr/include/openssl/opensslv.h", "libssl-dev"),
];

/// Build the slim guest kernel, which starts fastest, from Debian's kernel source.
///
/// It has what the machines of isolab have and what containers' images use. Takes about five
/// minutes on two cores and 2 GB of disk meanwhile; does nothing when that source is built already.
#[derive(Args)]
#[command(
    after_help = "Example:\n  isolab kernel build\n  isolab run --isolation paravirt --kernel slim busybox uname -a"
)]
pub struct Build {
    /// How to print what is there then.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(cache: &KernelCache, args: &Build) -> Result<()> {
    build(cache).context("cannot build the slim kernel")?;
    let kernels = cache.list()?.into_iter().filter(|kernel| kernel.name == NAME);
    ls::print(&kernels.collect::<Vec<_>>(), args.format)
}

/// What the lists lead to.
enum Source {
    /// The kernel of that source is there.
    Built(String),
    /// The package, and what the kernel is to be called.
    Archive(PathBuf, String),
}

fn build(cache: &KernelCache) -> Result<()> {
    // Until the source is known, it is not known whether there is anything to do.
    let new = cache.begin(NAME)?;
    let source = Apt::with(&cache_dir().join("apt"), |apt| {
        let Some(package) = apt.show(SOURCE)? else { return Ok(None) };
        let name = name_of(&package);
        if cache.folder().join(&name).is_dir() {
            return Ok(Some(Source::Built(name)));
        }
        tool::require(&NEEDS)?;
        Ok(apt.download(&package, new.work())?.map(|archive| Source::Archive(archive, name)))
    })?;
    let name = match source.with_context(|| format!("the archive has no {SOURCE}"))? {
        Source::Built(name) => name,
        Source::Archive(archive, name) => {
            make(new, &archive, &name)?;
            name
        }
    };
    Ok(cache.link(NAME, &name)?)
}

/// The same for the same source and options.
fn name_of(source: &Package) -> String {
    let digest = Sha256::digest(format!("{CONFIG}{}\n", source.version));
    let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{NAME}-{digits}")
}

fn make(new: NewKernel, archive: &Path, name: &str) -> Result<()> {
    let (source, made) = (new.work().join("src"), new.work().join("kernel"));
    unpack(archive, new.work(), &source)?;
    configure(&source, &new.work().join("slim.config"))?;
    compile(&source)?;
    fs::create_dir(&made).with_context(|| format!("cannot create {}", made.display()))?;
    let files = [
        ("vmlinux", "vmlinux"),
        ("System.map", "System.map"),
        ("arch/x86/boot/bzImage", "bzImage"),
        (".config", "config"),
        ("include/config/kernel.release", "version"),
    ];
    for (from, to) in files {
        let from = source.join(from);
        fs::copy(&from, made.join(to))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    // The symbol tables are of no use to a guest, and a loader would have to step over them.
    let mut strip = tool::command("strip", "binutils")?;
    strip.arg("--strip-unneeded").arg(made.join("vmlinux"));
    tool::run(strip)?;
    // Nor are the zeroes between its segments, which the loader leaves out where they are holes. Where
    // the file system has none, they stay.
    if let Ok(mut dig) = tool::command("fallocate", "util-linux") {
        let _ = dig.arg("--dig-holes").arg(made.join("vmlinux")).status();
    }
    new.publish(&made, name)?;
    Ok(())
}

fn unpack(archive: &Path, work: &Path, source: &Path) -> Result<()> {
    eprintln!("isolab: unpacking the source (half a minute or so)");
    let package = work.join("package");
    let mut unpack = tool::command("dpkg-deb", "dpkg")?;
    unpack.arg("-x").arg(archive).arg(&package);
    tool::run(unpack)?;
    fs::create_dir(source).with_context(|| format!("cannot create {}", source.display()))?;
    let mut tar = tool::command("tar", "tar")?;
    tar.args(["-x", "--strip-components=1", "-C"]).arg(source);
    tar.arg("-f").arg(package.join("usr/src").join(format!("{SOURCE}.tar.xz")));
    tool::run(tar)
}

fn configure(source: &Path, options: &Path) -> Result<()> {
    fs::write(options, CONFIG).with_context(|| format!("cannot write to {}", options.display()))?;
    let mut make = tool::command("make", "make")?;
    make.args(["-s", "-C"]).arg(source).arg("allnoconfig").env("KCONFIG_ALLCONFIG", options);
    tool::run(make)?;
    let config = source.join(".config");
    let text = fs::read_to_string(&config);
    let text = text.with_context(|| format!("cannot read {}", config.display()))?;
    match dropped(CONFIG, &text)[..] {
        [] => Ok(()),
        ref options => bail!("the source does not allow these options: {}", options.join(" ")),
    }
}

/// The options of which a configuration says something else: Kconfig drops silently what their
/// dependencies do not allow.
fn dropped<'a>(options: &'a str, config: &str) -> Vec<&'a str> {
    let is_kept = |option: &&str| match option.strip_suffix("=n") {
        Some(name) => {
            !config.lines().any(|line| line.strip_prefix(name).is_some_and(|v| v.starts_with('=')))
        }
        None => config.lines().any(|line| line == *option),
    };
    let options = options.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    options.filter(|option| !is_kept(option)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_did_not_stick_are_told() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=\"x\"\nCONFIG_EE=y\n";
        let options = "# A comment\n\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_D=\"x\"\nCONFIG_E=n\n";
        assert_eq!(dropped(options, config), [""; 0]);
        let options = "CONFIG_A=n\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_D=\"y\"\n";
        let all: Vec<&str> = options.lines().collect();
        assert_eq!(dropped(options, config), all);
    }

    #[test]
    fn another_source_is_another_kernel() {
        let source =
            |version: &str| Package { name: SOURCE.into(), version: version.into(), size: 1 };
        let (first, second) = (name_of(&source("6.1.1")), name_of(&source("6.1.2")));
        assert_eq!(first, name_of(&source("6.1.1")));
        assert!(first != second && first.starts_with("slim-"), "{first} {second}");
    }
}
