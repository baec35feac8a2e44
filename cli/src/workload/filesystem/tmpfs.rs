//! `--tmpfs`, and the memory of `--read-only`

use std::path::PathBuf;

use anyhow::{Result, bail};
use isolab_command::format::parse_size;
use isolab_isolation::{MountSource, VolumeMount};

use super::target;

/// Words of mount(8), and options of tmpfs(5) with what they take.
const WORDS: [&str; 8] =
    ["exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "relatime"];
const NUMBERS: [&str; 5] = ["uid", "gid", "nr_inodes", "nr_blocks", "mode"];

/// `PATH[:OPTIONS]`
pub fn parse(text: &str) -> Result<VolumeMount> {
    let (path, words) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = memory(target(path)?);
    for word in words.split(',').filter(|word| !word.is_empty()) {
        take(&mut mount, word)?;
    }
    Ok(finished(mount))
}

/// Memory at a path, so far without options.
pub fn memory(target: PathBuf) -> VolumeMount {
    VolumeMount { target, source: MountSource::Memory, read_only: false, options: Vec::new() }
}

/// Takes one option.
pub fn take(mount: &mut VolumeMount, word: &str) -> Result<()> {
    match word.split_once('=') {
        None if word == "ro" => mount.read_only = true,
        None if word == "rw" => mount.read_only = false,
        None if WORDS.contains(&word) => mount.options.push(word.to_owned()),
        None if word == "tmpcopyup" => {
            bail!("tmpcopyup is not supported: what the image has there is hidden")
        }
        // What this is without it.
        None if word == "notmpcopyup" => {}
        Some(("size", size)) if size.ends_with('%') => mount.options.push(word.to_owned()),
        Some(("size", size)) => match parse_size(size) {
            Ok(bytes) => mount.options.push(format!("size={bytes}")),
            Err(error) => bail!("size={}: {error}", size.escape_debug()),
        },
        Some((name, number)) if NUMBERS.contains(&name) => {
            let is_octal = name == "mode";
            if u32::from_str_radix(number, if is_octal { 8 } else { 10 }).is_err() {
                bail!("{name}={}: expected a number", number.escape_debug());
            }
            mount.options.push(word.to_owned());
        }
        _ => bail!("`{}` is no option of a tmpfs", word.escape_debug()),
    }
    Ok(())
}

/// With the defaults.
pub fn finished(mount: VolumeMount) -> VolumeMount {
    VolumeMount { options: VolumeMount::options(mount.options), ..mount }
}

/// What can be written though the image cannot.
pub fn writable(target: &str, mode: &str) -> VolumeMount {
    let mut mount = memory(target.into());
    mount.options.push(format!("mode={mode}"));
    finished(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_size_and_a_mode() {
        let mount = parse("/x:size=64M,mode=1777,noexec,ro").unwrap();
        assert_eq!(mount.options, ["nosuid", "nodev", "size=67108864", "mode=1777", "noexec"]);
        assert!(mount.read_only);
        assert_eq!(parse("/x:size=50%,dev").unwrap().options, ["nosuid", "size=50%", "dev"]);
        for bad in ["", "x", "/", "/x:size=", "/x:size=x", "/x:mode=9", "/x:tmpcopyup", "/x:huge"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
