//! `--tmpfs`, and the memory of `--read-only`

use std::path::PathBuf;

use anyhow::{Error, Result};
use isolab_isolation::{MemoryOptions, MountSource, VolumeMount};

use super::target;

/// `PATH[:OPTIONS]`
pub fn parse(text: &str) -> Result<VolumeMount> {
    let (path, words) = text.split_once(':').unwrap_or((text, ""));
    let target = target(path)?;
    let mut options = MemoryOptions::default();
    options.take_all(words).map_err(Error::msg)?;
    Ok(mount(target, options))
}

/// Memory at a path.
pub fn mount(target: PathBuf, MemoryOptions { read_only, words }: MemoryOptions) -> VolumeMount {
    let options = VolumeMount::options(words);
    VolumeMount { target, source: MountSource::Memory, read_only, options }
}

/// What can be written though the image cannot.
pub fn writable(target: &str, mode: &str) -> VolumeMount {
    let words = vec![format!("mode={mode}")];
    mount(target.into(), MemoryOptions { read_only: false, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_as_safe_as_any_mount() {
        let mount = parse("/x:size=1M,ro").unwrap();
        assert_eq!(mount.options, ["nosuid", "nodev", "size=1048576"]);
        assert!(mount.read_only);
        assert_eq!(parse("/x:dev").unwrap().options, ["nosuid", "dev"]);
        for bad in ["", "x", "/", "/x:huge"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
