//! A bundle (bundle.md of the runtime specification): a folder with config.json and, by its `root.path`, the root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use isolab_container::oci::{Process, Spec};

/// The configuration, and the root file system as an absolute path.
pub fn load(bundle: &Path) -> Result<(Spec, PathBuf, PathBuf)> {
    let bundle = fs::canonicalize(bundle);
    let bundle = bundle.context("cannot find the bundle")?;
    let path = bundle.join("config.json");
    let spec: Spec = read_json(&path)?;
    check_version(spec.version())?;
    let root = spec.root().as_ref().context("config.json has no root")?;
    let root = bundle.join(root.path());
    Ok((spec, root, bundle))
}

/// A process of its own file, as `exec --process` takes it.
pub fn load_process(path: &Path) -> Result<Process> {
    read_json(path)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    // From bytes: serde_json reads a stream one at a time, in twice the time.
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", path.display()))
}

/// Versions are semantic: all of 1 are for us (spec.md, "Versioning").
fn check_version(version: &str) -> Result<()> {
    if version.split('.').next() != Some("1") {
        bail!("ociVersion {version:?} is not one of 1.x");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_version_1_and_no_other() {
        for version in ["1.0.0", "1.2.1", "1.3.0", "1.0.2-dev"] {
            check_version(version).unwrap();
        }
        for version in ["", "0.9", "2.0.0", "10.0"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }
}
