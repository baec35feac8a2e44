//! Taking a large image in, unpacked and ready to run, beside other engines: time, and bytes on
//! the disk. Each sample has a store of its own, on the same file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use isolab_isolation::timeline;
use tempfile::TempDir;

use super::{ImagesError, run, sample};
use crate::runner::{Figure, Workload};
use crate::subjects::Peer;
use crate::subjects::peers::podman;

/// From the archive to unpacked layers.
pub const LOAD_AND_UNPACK: &str = "load_and_unpack";
/// Bytes on the disk, all of the store.
pub const DISK: &str = "disk";
/// Of these, what is kept beside the unpacked files to push or save the image again: isolab's
/// blobs, podman's tar-split records, from which it packs layers anew.
pub const DISK_TO_PUSH: &str = "disk_to_push";
/// The subject that is isolab.
pub const OWN: &str = "isolab";

/// Which engines take in what image.
pub struct StoresPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// Others; those that are not installed are left out.
    pub peers: Vec<Peer>,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Layers that the image's files are spread over.
    pub layers: u32,
}

/// A large image taken in, once a turn.
pub struct Stores {
    subjects: Vec<Subject>,
    work: TempDir,
}

impl Stores {
    /// Of this plan, and a note for each engine that is left out.
    ///
    /// # Errors
    /// The image cannot be made.
    pub fn new(plan: &StoresPlan) -> Result<(Self, Vec<String>), ImagesError> {
        let host = |action| {
            move |source| ImagesError::Host { action, subject: "all subjects".to_owned(), source }
        };
        let work = tempfile::tempdir().map_err(host("make a folder"))?;
        sample::write(&work.path().join(ARCHIVE), plan.bytes, plan.layers)
            .map_err(host("make the image"))?;
        let (mut subjects, mut notes) = (vec![Subject::Own(plan.program.clone())], Vec::new());
        for peer in plan.peers.iter().filter(|peer| peer.is_engine()) {
            match peer.program() {
                Ok(_) => subjects.push(Subject::Podman),
                Err(why) => notes.push(format!("{peer} is left out: {why}")),
            }
        }
        Ok((Self { subjects, work }, notes))
    }
}

impl Workload for Stores {
    type Error = ImagesError;

    fn name(&self) -> &'static str {
        "stores"
    }

    fn subjects(&self) -> Vec<String> {
        self.subjects.iter().map(|subject| subject.name().to_owned()).collect()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, ImagesError> {
        let work = self.work.path();
        self.subjects[subject].measure(&work.join(ARCHIVE), work).map(Vec::from)
    }
}

/// The image, in the folder that all work in.
const ARCHIVE: &str = "image.tar";
const MS: &str = "ms";
const MIB: &str = "MiB";

enum Subject {
    Own(PathBuf),
    /// The one engine that there is a way to measure.
    Podman,
}

impl Subject {
    fn name(&self) -> &'static str {
        match self {
            Subject::Own(_) => OWN,
            Subject::Podman => "podman",
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
            Figure::new(LOAD_AND_UNPACK, MS, (end - start) as f64 / 1e6),
            Figure::new(DISK, MIB, mebibytes(total)),
            Figure::new(DISK_TO_PUSH, MIB, mebibytes(to_push)),
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
            Subject::Podman => {
                let mut command = podman::command(store);
                command.args(["load", "--quiet", "--input"]).arg(archive);
                command
            }
        }
    }

    fn is_to_push(&self, path: &Path) -> bool {
        match self {
            Subject::Own(_) => path.components().any(|part| part.as_os_str() == "blobs"),
            Subject::Podman => path.to_str().is_some_and(|path| path.ends_with(".tar-split.gz")),
        }
    }

    /// podman mounts its store on itself.
    fn clean_up(&self, store: &Path) -> Result<(), ImagesError> {
        match self {
            Subject::Own(_) => Ok(()),
            Subject::Podman => {
                let mut command = podman::command(store);
                run(command.args(["rmi", "--all", "--force"]), self.name())?;
                // Fails where it did not.
                let _ = nix::mount::umount(&store.join("root/overlay"));
                Ok(())
            }
        }
    }
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
