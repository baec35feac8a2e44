//! The files that say what names mean: /etc/hosts, /etc/hostname and /etc/resolv.conf (hosts(5),
//! hostname(5), resolv.conf(5)).
//!
//! They are the instance's, not the image's: mounted over what the image has, and nothing that is
//! written to them gets into a layer. Where the image has no such file the mount needs a place: a
//! lowest layer, which all instances share, has them empty, so that no folder of the image changes.
//! Where the image has a link, or a folder, it has its own idea, which is left alone.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use isolab_guest::NameFile;
use isolab_images::Merged;
use oci_spec::runtime::{Mount, MountBuilder};

use crate::error::IsolationError;
use crate::filesystem::{HostEntry, hosts};
use crate::network::{Link, Network};

const ALL: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What the names of an instance are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    /// The host name that it has; None: the host's.
    pub hostname: Option<&'a str>,
    /// With the host's interfaces it has the host's names for addresses.
    pub network: &'a Network,
}

impl Names<'_> {
    /// The files. A host without one of them has nothing to say there.
    pub(crate) fn files(self) -> Vec<NameFile> {
        let contents = [self.hosts(), self.hostname(), self.resolver()];
        let files = ALL.into_iter().zip(contents);
        let file = |(name, content): (&str, Option<String>)| {
            Some(NameFile { name: name.to_owned(), content: content? })
        };
        files.filter_map(file).collect()
    }

    fn has_host_network(self) -> bool {
        matches!(self.network.link, Link::Host)
    }

    fn hosts(self) -> Option<String> {
        let mut hosts = match self.has_host_network() {
            true => of_host("hosts")?,
            false => "127.0.0.1\tlocalhost\n::1\tlocalhost\n".to_owned(),
        };
        if let Some(hostname) = self.hostname.filter(|name| !name.is_empty()) {
            if !hosts.is_empty() && !hosts.ends_with('\n') {
                hosts.push('\n');
            }
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
            let own = match &self.network.addresses[..] {
                [] => &loopback[..],
                own => own,
            };
            hosts.extend(own.iter().map(|address| format!("{address}\t{hostname}\n")));
        }
        Some(hosts)
    }

    fn hostname(self) -> Option<String> {
        self.hostname.map_or_else(|| of_host("hostname"), |name| Some(format!("{name}\n")))
    }

    /// None where nobody answers names: what the image says is as good.
    fn resolver(self) -> Option<String> {
        let servers = &self.network.name_servers;
        match self.has_host_network() {
            true => of_host("resolv.conf"),
            false if servers.is_empty() => None,
            false => Some(servers.iter().map(|it| format!("nameserver {it}\n")).collect()),
        }
    }
}

fn of_host(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/etc").join(name)).ok()
}

/// Files, ready to be mounted over an image's.
#[derive(Debug)]
pub(crate) struct NameFiles {
    /// To be put below all layers, where they lack a place.
    pub(crate) lowest: Option<PathBuf>,
    /// The mounts that put the files into the root.
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
    /// Writes the files of `names`, with these further lines of /etc/hosts, to the instance's `folder`, for an image of these layers. `shared`: the
    /// folder of all instances.
    pub(crate) fn prepare(
        folder: &Path,
        shared: &Path,
        names: Names,
        entries: &[HostEntry],
        layers: &[PathBuf],
        missing: Missing,
    ) -> Result<Self, IsolationError> {
        let io =
            |source| IsolationError::Io { action: "write to", path: folder.to_owned(), source };
        let mut files = names.files();
        hosts::add(&mut files, entries);
        let image = Merged::new(layers.to_vec());
        let mut lowest = None;
        let mut mounts = Vec::new();
        for NameFile { name, content } in &files {
            let place = Path::new("etc").join(name);
            let is_place = match image.stat(&place).map_err(io)? {
                Some((_, metadata)) => metadata.is_file(),
                None => {
                    if lowest.is_none() {
                        lowest = Some(places(shared, &files).map_err(io)?);
                    }
                    missing == Missing::Make || {
                        let all = layers.iter().chain(&lowest).cloned().collect();
                        // A layer may hide it, as it hides the other layers'.
                        Merged::new(all).stat(&place).map_err(io)?.is_some()
                    }
                }
            };
            if is_place {
                let source = folder.join(name);
                write(&source, content).map_err(io)?;
                mounts.push(bind(&source, &Path::new("/").join(place))?);
            }
        }
        Ok(Self { lowest, mounts })
    }
}

/// The layer of empty files, which is made when it is first needed. Nothing is ever changed in it, so
/// that two may make it at once, and one that was killed half-way is followed by one that goes on.
fn places(shared: &Path, files: &[NameFile]) -> io::Result<PathBuf> {
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let layer = shared.join(format!(".places-{}", names.join("+")));
    let etc = layer.join("etc");
    let is_done = |name: &&str| {
        fs::metadata(etc.join(name))
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == MODE)
    };
    if names.last().is_some_and(is_done) {
        return Ok(layer);
    }
    for folder in [&layer, &etc] {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::set_permissions(folder, Permissions::from_mode(0o755))?,
        }
    }
    names.iter().try_for_each(|name| write(&etc.join(name), ""))?;
    Ok(layer)
}

/// Of the files, as seen from inside.
const MODE: u32 = 0o644;

fn write(path: &Path, content: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content.as_bytes())?;
    // Not by our umask.
    file.set_permissions(Permissions::from_mode(MODE))
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
    use std::os::unix::fs::symlink;

    fn hosts(names: Names) -> String {
        names.files().into_iter().find(|file| file.name == "hosts").unwrap().content
    }

    #[test]
    fn localhost_and_the_own_name_have_addresses() {
        let mut network = Network::of(Link::None);
        let own = |name: &str, network: &Network| hosts(Names { hostname: Some(name), network });
        let localhost = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";
        assert_eq!(own("box", &network), format!("{localhost}127.0.0.1\tbox\n"));
        assert_eq!(own("", &network), localhost);
        network.addresses = ["10.0.0.2", "fd00::2"].map(|it| it.parse().unwrap()).to_vec();
        assert_eq!(own("box", &network), format!("{localhost}10.0.0.2\tbox\nfd00::2\tbox\n"));
        let ours = fs::read_to_string("/etc/hosts").unwrap();
        let host = Network::of(Link::Host);
        assert_eq!(hosts(Names { hostname: None, network: &host }), ours);
        assert_eq!(own("box", &host), format!("{}\n127.0.0.1\tbox\n", ours.trim_end()));
    }

    #[test]
    fn names_are_asked_for_where_somebody_answers() {
        let resolver = |network: &Network| {
            let files = Names { hostname: Some("box"), network }.files();
            files.into_iter().find(|file| file.name == "resolv.conf").map(|file| file.content)
        };
        let mut network = Network::of(Link::None);
        assert_eq!(resolver(&network), None);
        network.name_servers = ["10.0.0.1", "10.1.0.1"].map(|it| it.parse().unwrap()).to_vec();
        assert_eq!(resolver(&network).unwrap(), "nameserver 10.0.0.1\nnameserver 10.1.0.1\n");
        let ours = fs::read_to_string("/etc/resolv.conf").ok();
        assert_eq!(resolver(&Network::of(Link::Host)), ours);
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
        let network = Network::of(Link::None);
        let names = Names { hostname: Some("box"), network: &network };
        for (layers, missing, wanted) in [
            (vec![&plain], Missing::Leave, &["/etc/hosts", "/etc/hostname"][..]),
            (vec![&bare], Missing::Leave, &["/etc/hosts", "/etc/hostname"]),
            (vec![&linked, &plain], Missing::Make, &[]),
            (vec![&opaque, &plain], Missing::Leave, &[]),
            (vec![&opaque, &plain], Missing::Make, &["/etc/hosts", "/etc/hostname"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let layers: Vec<PathBuf> = layers.into_iter().cloned().collect();
            let prepared =
                NameFiles::prepare(folder.path(), dir.path(), names, &[], &layers, missing);
            let files = prepared.unwrap();
            assert_eq!(files.lowest.is_some(), !layers.contains(&linked), "{layers:?}");
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

    #[test]
    fn a_layer_of_places_that_was_begun_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::of(Link::None);
        let files = Names { hostname: Some("box"), network: &network }.files();
        let layer = places(dir.path(), &files).unwrap();
        let hostname = layer.join("etc/hostname");
        fs::set_permissions(&hostname, Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(layer.join("etc/hosts")).unwrap();
        assert_eq!(places(dir.path(), &files).unwrap(), layer);
        for file in [layer.join("etc/hosts"), hostname] {
            let metadata = fs::metadata(file).unwrap();
            assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (0, MODE));
        }
    }
}
