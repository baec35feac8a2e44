//! Taking a large image in, unpacked and ready to run, beside other engines: time, and bytes on
//! the disk. Each sample has a store of its own, on the same file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolab_isolation::timeline;

use super::{ImagesError, run, sample};
use crate::report::Findings;
use crate::rounds::{self, Figure};

/// From the archive to unpacked layers.
pub const LOAD_AND_UNPACK: &str = "load_and_unpack";
/// Bytes on the disk, all of the store.
pub const DISK: &str = "disk";
/// Of these, what is kept beside the unpacked files to push or save the image again: isolab's
/// blobs, podman's tar-split records, from which it packs layers anew.
pub const DISK_TO_PUSH: &str = "disk_to_push";
/// The subject that is isolab.
pub const OWN: &str = "isolab";

/// An engine that isolab's store is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// podman, with its overlay driver.
    Podman,
}

impl Peer {
    /// The program, and the subject's name.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Podman => "podman",
        }
    }
}

impl std::str::FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "podman" => Ok(Peer::Podman),
            other => Err(format!("unknown engine `{other}`; there is podman")),
        }
    }
}

/// Which engines take in what image.
pub struct StoresPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// Others; those that are not installed are left out.
    pub peers: Vec<Peer>,
    /// Counted rounds.
    pub runs: u32,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Layers that the image's files are spread over.
    pub layers: u32,
}

/// Runs the plan. `progress` hears of every round.
///
/// # Errors
/// [`ImagesError`] at the first load that fails.
pub fn measure(plan: &StoresPlan, progress: impl FnMut(u32)) -> Result<Findings, ImagesError> {
    let host = |action| {
        move |source| ImagesError::Host { action, subject: "all subjects".to_owned(), source }
    };
    let work = tempfile::tempdir().map_err(host("make a folder"))?;
    let archive = work.path().join("image.tar");
    sample::write(&archive, plan.bytes, plan.layers).map_err(host("make the image"))?;
    let (mut subjects, mut notes) = (vec![Subject::Own(&plan.program)], Vec::new());
    for peer in &plan.peers {
        match is_installed(peer.name()) {
            true => subjects.push(Subject::Peer(*peer)),
            false => notes.push(format!("{} is not installed", peer.name())),
        }
    }
    let turn = |subject: &Subject<'_>, _round| subject.measure(&archive, work.path());
    let results = rounds::measure(plan.runs, &subjects, |subject| subject.name(), progress, turn)?;
    Ok(Findings { results, notes })
}

const MS: &str = "ms";
const MIB: &str = "MiB";

fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

enum Subject<'a> {
    Own(&'a Path),
    Peer(Peer),
}

impl Subject<'_> {
    fn name(&self) -> &'static str {
        match self {
            Subject::Own(_) => OWN,
            Subject::Peer(peer) => peer.name(),
        }
    }

    fn measure(&self, archive: &Path, work: &Path) -> Result<[Figure; 3], ImagesError> {
        let host = |action| {
            move |source| ImagesError::Host { action, subject: self.name().to_owned(), source }
        };
        let store = tempfile::tempdir_in(work).map_err(host("make a store"))?;
        let mut load = self.load(archive, store.path());
        let start = timeline::now();
        run(&mut load, self.name())?;
        let end = timeline::now();
        // Blocks are counted when they are allocated, which a write may put off.
        nix::unistd::sync();
        let look = || -> io::Result<(u64, u64)> {
            let total = disk_usage(store.path(), &|_| true)?;
            Ok((total, disk_usage(store.path(), &|path| self.is_to_push(path))?))
        };
        let (total, to_push) = look().map_err(host("look at the store"))?;
        self.clean_up(store.path())?;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Ok([
            (LOAD_AND_UNPACK, MS, (end - start) as f64 / 1e6),
            (DISK, MIB, mebibytes(total)),
            (DISK_TO_PUSH, MIB, mebibytes(to_push)),
        ])
    }

    fn load(&self, archive: &Path, store: &Path) -> Command {
        match self {
            Subject::Own(program) => {
                let mut command = Command::new(program);
                command.env("XDG_DATA_HOME", store);
                command.args(["image", "load", "--unpack", "--tag", "bench"]).arg(archive);
                command
            }
            Subject::Peer(Peer::Podman) => {
                let mut command = podman(store);
                command.args(["load", "--quiet", "--input"]).arg(archive);
                command
            }
        }
    }

    fn is_to_push(&self, path: &Path) -> bool {
        match self {
            Subject::Own(_) => path.components().any(|part| part.as_os_str() == "blobs"),
            Subject::Peer(Peer::Podman) => {
                path.to_str().is_some_and(|path| path.ends_with(".tar-split.gz"))
            }
        }
    }

    /// podman mounts its store on itself.
    fn clean_up(&self, store: &Path) -> Result<(), ImagesError> {
        match self {
            Subject::Own(_) => Ok(()),
            Subject::Peer(Peer::Podman) => {
                let mut command = podman(store);
                run(command.args(["rmi", "--all", "--force"]), self.name())?;
                // Fails where it did not.
                let _ = nix::mount::umount(&store.join("root/overlay"));
                Ok(())
            }
        }
    }
}

fn podman(store: &Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    command.args(["--storage-driver", "overlay"]);
    command
}

/// Bytes on the disk of a folder and what is in it, as far as `counts` says so.
fn disk_usage(path: &Path, counts: &dyn Fn(&Path) -> bool) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    let mut bytes = if counts(path) { metadata.blocks() * 512 } else { 0 };
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += disk_usage(&entry?.path(), counts)?;
        }
    }
    Ok(bytes)
}
