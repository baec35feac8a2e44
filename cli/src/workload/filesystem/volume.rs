//! `--volume`

use anyhow::{Context, Result, bail};
use isolab_isolation::volumes::VolumeName;
use isolab_isolation::{MountSource, VolumeMount};

use super::{host_path, target};

/// `[HOST:|NAME:]PATH[:OPTIONS]`
pub fn parse(text: &str) -> Result<VolumeMount> {
    let fields: Vec<&str> = text.split(':').collect();
    let (source, path, words) = match fields[..] {
        [path] => (None, path, ""),
        [source, path] => (Some(source), path, ""),
        [source, path, words] => (Some(source), path, words),
        _ => bail!("expected HOST:PATH, NAME:PATH or PATH, and perhaps :OPTIONS"),
    };
    let mut options = Options::default();
    words.split(',').filter(|word| !word.is_empty()).try_for_each(|word| options.take(word))?;
    let source = match source {
        None => anonymous(options.copy_up)?,
        Some(path) if path.starts_with(['/', '.', '~']) || path.contains('/') => host_path(path)?,
        Some(name) => named(name, options.copy_up)?,
    };
    let (target, read_only) = (target(path)?, options.read_only);
    Ok(VolumeMount { target, source, read_only, options: VolumeMount::options(options.words) })
}

/// A volume by its name.
pub fn named(name: &str, copy_up: bool) -> Result<MountSource> {
    Ok(MountSource::Volume { name: name.parse()?, anonymous: false, copy_up })
}

/// A volume of the instance's own.
pub fn anonymous(copy_up: bool) -> Result<MountSource> {
    let name = VolumeName::random().context("cannot read /dev/urandom")?;
    Ok(MountSource::Volume { name, anonymous: true, copy_up })
}

/// Words behind a volume.
pub struct Options {
    pub read_only: bool,
    pub copy_up: bool,
    /// For mount(8).
    pub words: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_only: false, copy_up: true, words: Vec::new() }
    }
}

/// Words of mount(8) that a bind mount knows.
const WORDS: [&str; 16] = [
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

impl Options {
    /// Takes a word.
    ///
    /// # Errors
    /// It is none, or asks for what isolab cannot do.
    pub fn take(&mut self, word: &str) -> Result<()> {
        match word {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "copy" => self.copy_up = true,
            "nocopy" => self.copy_up = false,
            // Labels of SELinux, which no instance has: as podman where SELinux is off.
            "z" | "Z" => {}
            "U" => bail!("U is not supported: a volume's files keep their owners"),
            "O" => bail!("O is not supported: overlays of volumes"),
            "idmap" => {
                bail!("idmap is not supported: a volume's files have the owners that they have")
            }
            word if WORDS.contains(&word) => self.words.push(word.to_owned()),
            other => bail!("`{}` is no option of a volume", other.escape_debug()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn volumes_are_folders_names_or_nothing() {
        let mount = parse("/:/host:ro,noexec,suid,z").unwrap();
        assert_eq!(mount.source, MountSource::Host("/".into()));
        assert_eq!((mount.target.as_path(), mount.read_only), (Path::new("/host"), true));
        assert_eq!(mount.options, ["nodev", "noexec", "suid"]);
        let mount = parse("data:/var//lib/").unwrap();
        assert_eq!(mount.target, Path::new("/var/lib"));
        assert_eq!(mount.options, ["nosuid", "nodev"]);
        let MountSource::Volume { name, anonymous: false, copy_up: true } = mount.source else {
            panic!("{mount:?}");
        };
        assert_eq!(name.as_str(), "data");
        let nocopy = parse("data:/x:nocopy").unwrap();
        assert!(matches!(nocopy.source, MountSource::Volume { copy_up: false, .. }));
        let (one, other) = (parse("/var").unwrap(), parse("/var").unwrap());
        assert!(matches!(one.source, MountSource::Volume { anonymous: true, .. }));
        assert_ne!(one.source, other.source);
        for (bad, words) in [
            ("", "absolute"),
            ("data:", "absolute"),
            ("data:x", "absolute"),
            ("data:/", "not /"),
            ("data:/a/../b", "`..`"),
            ("a:/b:ro:x", "OPTIONS"),
            ("-a:/b", "cannot be a volume's name"),
            (":/b", "cannot be a volume's name"),
            ("/no/such/path:/b", "/no/such/path"),
            ("./no/such:/b", "no/such"),
            ("a:/b:U", "U is not supported"),
            ("a:/b:O", "O is not supported"),
            ("a:/b:idmap", "idmap is not supported"),
            ("a:/b:size=1", "no option"),
        ] {
            let error = format!("{:#}", parse(bad).unwrap_err());
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
