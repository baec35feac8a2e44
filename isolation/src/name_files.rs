//! The files that say what names mean: /etc/hosts, /etc/hostname and /etc/resolv.conf (hosts(5),
//! hostname(5), resolv.conf(5)).
//!
//! They are the instance's, not the image's: mounted over what the image has, and nothing that is
//! written to them gets into a layer. Where the image has no such file the mount needs a place: the
//! lowest layer of all has them empty, so that no folder of the image changes. Where the image
//! has a link, or a folder, it has its own idea, which is left alone.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use isolab_guest::{Interface, NameFile};
use isolab_images::Merged;
use oci_spec::runtime::{Mount, MountBuilder};

use crate::error::IsolationError;

const ALL: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What the names of an instance are about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names<'a> {
    /// It has the host's network, and so its names.
    Hosts,
    /// It has a name of its own, and perhaps an address.
    Own { hostname: &'a str, interface: Option<&'a Interface> },
}

impl Names<'_> {
    /// The files. A host without one of them has nothing to say there.
    pub(crate) fn files(self) -> Vec<NameFile> {
        let file = |name: &str, content| NameFile { name: name.to_owned(), content };
        match self {
            Names::Hosts => {
                let read = |name| fs::read_to_string(Path::new("/etc").join(name)).ok();
                ALL.iter().filter_map(|name| Some(file(name, read(name)?))).collect()
            }
            Names::Own { hostname, interface } => {
                let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost\n".to_owned();
                if !hostname.is_empty() {
                    let address =
                        interface.map_or("127.0.0.1".to_owned(), |i| i.address.to_string());
                    hosts += &format!("{address}\t{hostname}\n");
                }
                vec![file("hosts", hosts), file("hostname", format!("{hostname}\n"))]
            }
        }
    }
}

/// Files, ready to be mounted over an image's.
#[derive(Debug)]
pub(crate) struct NameFiles {
    /// To be put below all layers.
    pub(crate) lowest: PathBuf,
    /// To be mounted.
    pub(crate) mounts: Vec<Mount>,
}

/// Whether a mount may make the file it goes over, where a layer hides every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The file would be in the instance only.
    Make,
    /// The file would be in the image that is built.
    Leave,
}

impl NameFiles {
    /// Writes the files of `names` to `folder`, for an image of these layers.
    pub(crate) fn prepare(
        folder: &Path,
        names: Names,
        layers: &[PathBuf],
        missing: Missing,
    ) -> Result<Self, IsolationError> {
        let io =
            |source| IsolationError::Io { action: "write to", path: folder.to_owned(), source };
        let (lowest, contents) = (folder.join("mount-points"), folder.join("names"));
        let files = names.files();
        write(&lowest, &contents, &files).map_err(io)?;
        let mut all = layers.to_vec();
        all.push(lowest.clone());
        let image = Merged::new(all);
        let mut mounts = Vec::new();
        for NameFile { name, .. } in &files {
            let found = image.stat(&Path::new("etc").join(name)).map_err(io)?;
            let is_place = match found {
                Some((_, metadata)) => metadata.is_file(),
                None => missing == Missing::Make,
            };
            if is_place {
                mounts.push(bind(&contents.join(name), &Path::new("/etc").join(name))?);
            }
        }
        Ok(Self { lowest, mounts })
    }
}

fn write(lowest: &Path, contents: &Path, files: &[NameFile]) -> io::Result<()> {
    // Seen from inside, so not by our umask.
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let etc = lowest.join("etc");
    for folder in [lowest, &etc, contents] {
        fs::create_dir(folder)?;
        set(folder, 0o755)?;
    }
    for NameFile { name, content } in files {
        for (path, content) in [(etc.join(name), ""), (contents.join(name), content.as_str())] {
            fs::write(&path, content)?;
            set(&path, 0o644)?;
        }
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> Result<Mount, IsolationError> {
    let options = ["bind", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    let mount = MountBuilder::default().destination(target).typ("bind").source(source);
    mount
        .options(options)
        .build()
        .map_err(|error| IsolationError::Setting { field: "mounts", why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::os::unix::fs::symlink;

    fn hosts(names: Names) -> String {
        names.files().into_iter().find(|file| file.name == "hosts").unwrap().content
    }

    #[test]
    fn localhost_and_the_own_name_have_addresses() {
        let own = |hostname, interface| hosts(Names::Own { hostname, interface });
        let localhost = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";
        assert_eq!(own("box", None), format!("{localhost}127.0.0.1\tbox\n"));
        assert_eq!(own("", None), localhost);
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let interface = Interface { address, prefix: 24, gateway: None };
        assert_eq!(own("box", Some(&interface)), format!("{localhost}10.0.0.2\tbox\n"));
        assert_eq!(hosts(Names::Hosts), fs::read_to_string("/etc/hosts").unwrap());
    }

    #[test]
    fn files_are_mounted_over_files_and_over_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let image = |name: &str| {
            let layer = dir.path().join(name);
            fs::create_dir_all(layer.join("etc")).unwrap();
            layer
        };
        let (plain, linked, bare) = (image("plain"), image("linked"), dir.path().join("bare"));
        fs::create_dir(&bare).unwrap();
        fs::write(plain.join("etc/hosts"), "the image's").unwrap();
        symlink("/etc/passwd", linked.join("etc/hosts")).unwrap();
        fs::create_dir(linked.join("etc/hostname")).unwrap();
        let opaque = image("opaque");
        xattr::set(opaque.join("etc"), "user.overlay.opaque", b"y").unwrap();
        let names = Names::Own { hostname: "box", interface: None };
        for (layers, missing, wanted) in [
            (vec![&plain], Missing::Leave, &["/etc/hosts", "/etc/hostname"][..]),
            (vec![&bare], Missing::Leave, &["/etc/hosts", "/etc/hostname"]),
            (vec![&linked, &plain], Missing::Make, &[]),
            (vec![&opaque, &plain], Missing::Leave, &[]),
            (vec![&opaque, &plain], Missing::Make, &["/etc/hosts", "/etc/hostname"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let layers: Vec<PathBuf> = layers.into_iter().cloned().collect();
            let files = NameFiles::prepare(folder.path(), names, &layers, missing).unwrap();
            let targets: Vec<_> =
                files.mounts.iter().map(|mount| mount.destination().to_str().unwrap()).collect();
            assert_eq!(targets, wanted, "{layers:?}");
            for mount in &files.mounts {
                let source = mount.source().as_ref().unwrap();
                assert_eq!(fs::metadata(source).unwrap().permissions().mode() & 0o777, 0o644);
            }
        }
        assert_eq!(fs::read_to_string(plain.join("etc/hosts")).unwrap(), "the image's");
    }
}
