//! Where files come from and go to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use isolab_transfer::{Found, Kind};

/// One of the command's two arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `INSTANCE:PATH`.
    Instance(String, PathBuf),
    /// A path of the host, absolute.
    Host(PathBuf),
    /// `-`: an archive.
    Archive,
}

impl FromStr for Place {
    type Err = String;

    /// As podman: what begins with `/` or `.` is the host's, colon or not.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Archive);
        }
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.contains('/') => {
                if path.is_empty() {
                    return Err("the path in the instance is missing".to_owned());
                }
                // Relative to the root, as podman has it.
                Ok(Self::Instance(name.to_owned(), joined("/".as_ref(), path)))
            }
            _ if text.is_empty() => Err("the path is empty".to_owned()),
            _ => {
                let current = std::env::current_dir().map_err(|error| error.to_string())?;
                Ok(Self::Host(joined(&current, text)))
            }
        }
    }
}

/// Keeps what is at the end: `/` and `/.` mean something.
fn joined(folder: &Path, text: &str) -> PathBuf {
    let mut path = folder.as_os_str().to_owned();
    if text.starts_with('/') {
        return text.into();
    }
    if folder != Path::new("/") {
        path.push("/");
    }
    path.push(text);
    path.into()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(name, path) => write!(f, "{name}:{}", path.display()),
            Self::Host(path) => write!(f, "{}", path.display()),
            Self::Archive => f.write_str("-"),
        }
    }
}

impl Place {
    pub fn is_instance(&self) -> bool {
        matches!(self, Self::Instance(..))
    }

    /// None of an archive.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Instance(_, path) | Self::Host(path) => Some(path),
            Self::Archive => None,
        }
    }

    /// Whether it ends with `/` or `/.`: a folder is meant.
    fn ends_with(&self, end: &str) -> bool {
        self.path().is_some_and(|path| path.to_string_lossy().ends_with(end))
    }
}

/// Into which folder something goes, and under which name.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    pub folder: PathBuf,
    pub name: PathBuf,
}

/// As cp(1), Docker and podman have it. `target`: what is there, and the place.
pub fn destination(
    found: Option<Found>,
    source: &Place,
    target: Option<(Option<Found>, &Place)>,
) -> Result<Destination> {
    let path = source.path().context("an archive has names of its own")?;
    let Some(Found(kind)) = found else { bail!("{source}: no such file or directory") };
    if kind == Kind::Other && (source.ends_with("/") || source.ends_with("/.")) {
        bail!("{source} is no folder");
    }
    let is_content = source.ends_with("/.");
    let own_name = || {
        path.components().next_back().and_then(|last| match last {
            std::path::Component::Normal(name) => Some(PathBuf::from(name)),
            _ => None,
        })
    };
    let here = || PathBuf::from(".");
    let name = if is_content { here() } else { own_name().unwrap_or_else(here) };
    let Some((there, target)) = target else { return Ok(Destination { folder: here(), name }) };
    let target_path = target.path().context("an archive has no folder")?;
    match there {
        Some(Found(Kind::Folder)) => Ok(Destination { folder: target_path.to_owned(), name }),
        Some(Found(Kind::Other)) if kind == Kind::Folder => {
            bail!("{target} is no folder, and {source} is one")
        }
        Some(Found(Kind::Other)) | None => {
            if target.ends_with("/") && kind == Kind::Other {
                bail!("{target}: no such folder");
            }
            let last = target_path.file_name().with_context(|| format!("{target} has no name"))?;
            let folder = target_path.parent().unwrap_or(Path::new("/"));
            Ok(Destination { folder: folder.to_owned(), name: last.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_instances_paths_or_an_archive() {
        assert_eq!(place("-"), Place::Archive);
        assert_eq!(place("web:/a/."), Place::Instance("web".to_owned(), "/a/.".into()));
        assert_eq!(place("web:a"), Place::Instance("web".to_owned(), "/a".into()));
        assert_eq!(place("/a:b"), Place::Host("/a:b".into()));
        assert!(matches!(place("./a:b"), Place::Host(_)));
        assert!(matches!(place("a/b:c"), Place::Host(path) if path.is_absolute()));
        for bad in ["", "web:"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_those_that_cp_gives() {
        let (folder, file) = (Some(Found(Kind::Folder)), Some(Found(Kind::Other)));
        let case = |source: &str, found, there, target: &str| {
            destination(found, &place(source), Some((there, &place(target))))
                .map(|it| (it.folder.display().to_string(), it.name.display().to_string()))
                .map_err(|error| error.to_string())
        };
        let is = |folder: &str, name: &str| Ok((folder.to_owned(), name.to_owned()));
        assert_eq!(case("/a/f", file, folder, "w:/b"), is("/b", "f"));
        assert_eq!(case("/a/f", file, None, "w:/b/g"), is("/b", "g"));
        assert_eq!(case("/a/f", file, file, "w:/b/g"), is("/b", "g"));
        assert_eq!(case("/a/d", folder, folder, "w:/b"), is("/b", "d"));
        assert_eq!(case("/a/d/.", folder, folder, "w:/b"), is("/b", "."));
        assert_eq!(case("/a/d", folder, None, "w:/b/e"), is("/b", "e"));
        assert_eq!(case("/a/d/.", folder, None, "w:/b/e"), is("/b", "e"));
        assert_eq!(case("w:/", folder, folder, "/b"), is("/b", "."));
        for (result, words) in [
            (case("/a/f", None, folder, "w:/b"), "/a/f: no such file"),
            (case("/a/f", file, None, "w:/b/"), "w:/b/: no such folder"),
            (case("/a/d", folder, file, "w:/b"), "w:/b is no folder"),
            (case("/a/f/.", file, folder, "w:/b"), "/a/f/. is no folder"),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
