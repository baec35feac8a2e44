//! `isolab tiers build`: the images of the three tiers, from files that are part of this executable, so that an
//! installed isolab needs no checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use isolab_guest::package;

/// Build the images of the three tiers, shop-web, shop-app and shop-db, and print their names and digests.
///
/// Steps whose files did not change come from the cache: the second time it takes seconds. `up` does it by itself.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab tiers build && isolab image ls")]
pub struct Build {
    /// Do every step, also where the cache has its outcome.
    #[arg(long)]
    no_cache: bool,
}

/// An image could not be built; the builder has said why.
#[derive(Debug, thiserror::Error)]
#[error("cannot build the image `{image}`")]
pub struct BuildFailure {
    /// Which one.
    image: String,
}

/// A file of `tiers/`, by its path there.
type Embedded = (&'static str, &'static [u8]);

macro_rules! embedded {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../tiers/", $path)))),*]
    };
}

/// All that the images and the compose files are made of, but for the application server, which is an executable of the
/// package.
const FILES: &[Embedded] = embedded![
    "compose.yaml",
    "standby.yaml",
    "app/Dockerfile",
    "db/Dockerfile",
    "db/monitor.conf",
    "db/node.sh",
    "db/pg_hba.conf",
    "db/postgresql.conf",
    "db/roles.sql",
    "db/schema.sql",
    "db/seed.sql",
    "web/Dockerfile",
    "web/entrypoint.sh",
    "web/nginx.conf",
    "web/static/api.js",
    "web/static/detail.js",
    "web/static/index.html",
    "web/static/list.js",
    "web/static/pictures/clothing.svg",
    "web/static/pictures/home.svg",
    "web/static/pictures/kitchen.svg",
    "web/static/pictures/outdoors.svg",
    "web/static/product.html",
    "web/static/shop.css",
];

/// The application server, and its name in the build's context.
const SERVER: &str = "isolab-shop";
const TIERS: [&str; 3] = ["app", "web", "db"];

/// Runs the command.
pub fn run(args: &Build) -> Result<ExitCode> {
    for (image, digest) in build(unpack()?.path(), args.no_cache)? {
        println!("{image} {digest}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds them of the files in this folder ([`unpack`]), and gives their names and digests.
///
/// # Errors
/// One cannot be built; the builder has told why.
pub fn build(folder: &Path, no_cache: bool) -> Result<Vec<(String, String)>> {
    let mut built = Vec::new();
    for tier in TIERS {
        let image = format!("shop-{tier}");
        let mut builder = Command::new(package::executable("isolab-image")?);
        // Packages come from Debian's mirror.
        builder.args(["build", "--quiet", "--network", "host", "-t", &image]);
        builder.args(no_cache.then_some("--no-cache")).arg(folder.join(tier));
        let output = builder.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.context("cannot run isolab-image")?;
        if !output.status.success() {
            return Err(BuildFailure { image }.into());
        }
        // What the steps print comes before.
        let output = String::from_utf8_lossy(&output.stdout);
        built.push((image, output.lines().last().unwrap_or_default().to_owned()));
    }
    Ok(built)
}

/// Writes the files into a folder, which goes when it is dropped.
///
/// # Errors
/// There is no room, or no application server in the package.
pub fn unpack() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("cannot make a folder for the build")?;
    for (path, content) in FILES {
        write(&folder.path().join(path), content)?;
    }
    let server = package::executable(SERVER)?;
    let copy = folder.path().join("app").join(SERVER);
    let copied = fs::copy(&server, copy);
    copied.with_context(|| format!("cannot copy {}", server.display()))?;
    Ok(folder)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let parent: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    fs::create_dir_all(parent).with_context(cannot)?;
    fs::write(path, content).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn files_in(folder: &Path, all: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files_in(&path, all),
                false => drop(all.insert(path)),
            }
        }
    }

    #[test]
    fn no_file_of_the_images_is_forgotten() {
        let tiers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tiers");
        let single = ["compose.yaml", "standby.yaml", "app/Dockerfile"];
        let mut there = BTreeSet::from(single.map(|it| tiers.join(it)));
        files_in(&tiers.join("web"), &mut there);
        files_in(&tiers.join("db"), &mut there);
        let embedded: BTreeSet<_> = FILES.iter().map(|(path, _)| tiers.join(path)).collect();
        assert_eq!(embedded, there);
    }
}
