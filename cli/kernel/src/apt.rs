//! Debian's packages, by way of apt, which verifies each against the archive's signature
//! (apt-secure(8)) with the host's own sources and keys.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use isolab_guest::programs;

use crate::tool;

/// Package lists, and what is downloaded by them.
pub struct Apt {
    /// Our own lists, where the host's do not serve. Only root may renew those.
    lists: Option<PathBuf>,
}

/// A package that the lists know.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Bytes to download.
    pub size: u64,
}

impl Apt {
    /// Asks `attempt` with the host's package lists, and where they do not serve once more with new
    /// lists of our own, in the folder `lists`.
    ///
    /// # Errors
    /// What `attempt` says, there is no apt, or the lists cannot be renewed.
    pub fn with<T>(
        lists: &Path,
        attempt: impl Fn(&Self) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        programs::find("apt-get", "apt").context("kernels come from Debian's archive, by apt")?;
        if let Some(found) = attempt(&Self { lists: None })? {
            return Ok(Some(found));
        }
        let own = Self { lists: Some(lists.to_owned()) };
        own.update(lists)?;
        attempt(&own)
    }

    fn update(&self, lists: &Path) -> Result<()> {
        eprintln!("isolab: reading the package lists of Debian's archive (10 seconds or so)");
        let partial = lists.join("lists/partial");
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        tool::run(self.get("update")?)
    }

    /// The package of this name.
    pub fn show(&self, name: &str) -> Result<Option<Package>> {
        Ok(parse_package(&self.cache(&["show", "--no-all-versions", name])?))
    }

    /// The one package that a metapackage stands for: `linux-image-6.1.0-50-amd64`.
    pub fn behind(&self, metapackage: &str) -> Result<Option<Package>> {
        match parse_dependency(&self.cache(&["depends", metapackage])?) {
            Some(name) => self.show(name),
            None => Ok(None),
        }
    }

    /// Downloads a package into `folder`, where it is the only one. None where the host's lists do not
    /// serve for that; apt says why on standard error.
    pub fn download(&self, package: &Package, folder: &Path) -> Result<Option<PathBuf>> {
        let (name, megabytes) = (&package.name, package.size / 1_000_000);
        eprintln!("isolab: downloading {name} {} ({megabytes} MB)", package.version);
        let mut get = self.get("download")?;
        get.arg(format!("{name}={}", package.version)).current_dir(folder);
        if !get.status().context("cannot run apt-get")?.success() {
            return match self.lists {
                // What the host's lists name may have been replaced in the archive since.
                None => Ok(None),
                Some(_) => bail!("apt-get cannot download {name}; its messages are above"),
            };
        }
        let entries = fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()));
        let mut archives = entries.filter(|path| path.extension().is_some_and(|e| e == "deb"));
        match (archives.next(), archives.next()) {
            (Some(archive), None) => Ok(Some(archive)),
            _ => bail!("apt-get download {name} did not leave one package"),
        }
    }

    fn get(&self, action: &str) -> Result<Command> {
        let mut command = tool::command("apt-get", "apt")?;
        if !stderr().is_terminal() {
            command.arg("-q");
        }
        // As root apt drops privileges for downloads, which our folders do not allow.
        command.args(["-o", "APT::Sandbox::User=root"]).args(self.options()).arg(action);
        Ok(command)
    }

    /// What apt-cache prints; nothing where it does not know the package.
    fn cache(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::find("apt-cache", "apt")?);
        let output = command.args(self.options()).args(words).env("LC_ALL", "C").output();
        let output = output.context("cannot run apt-cache")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn options(&self) -> Vec<OsString> {
        let option = |name: &str, path: &Path| {
            let mut word = OsString::from(format!("{name}="));
            word.push(path);
            [OsString::from("-o"), word]
        };
        let folders = |lists: &PathBuf| {
            [option("Dir::State::lists", &lists.join("lists")), option("Dir::Cache", lists)]
        };
        self.lists.iter().flat_map(folders).flatten().collect()
    }
}

/// The first package of what `apt-cache show` prints (deb822(5)).
fn parse_package(text: &str) -> Option<Package> {
    let field = |name: &str| {
        let lines = text.lines().take_while(|line| !line.is_empty());
        lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).next().map(str::trim)
    };
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        size: field("Size")?.parse().ok()?,
    })
}

/// The first dependency of what `apt-cache depends` prints.
fn parse_dependency(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix("Depends:")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_says_is_read() {
        let shown = "Package: linux-source-6.1\nSource: linux\nVersion: 6.1.1-1\n\
            Depends: binutils\nDescription: source\n Version: of the text\nSize: 42\n\n\
            Package: other\nVersion: 2\nSize: 1\n";
        let (name, version) = ("linux-source-6.1".to_owned(), "6.1.1-1".to_owned());
        assert_eq!(parse_package(shown), Some(Package { name, version, size: 42 }));
        for without in ["", "N: no packages found\n", "Package: a\nVersion: 1\n"] {
            assert_eq!(parse_package(without), None, "{without:?}");
        }
        let depends = "linux-image-amd64\n  PreDepends: x\n  Depends: linux-image-6.1.0-50-amd64\n";
        assert_eq!(parse_dependency(depends), Some("linux-image-6.1.0-50-amd64"));
        assert_eq!(parse_dependency("linux-image-amd64\n"), None);
    }
}
