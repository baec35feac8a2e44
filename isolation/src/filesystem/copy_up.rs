//! What a new volume gets of the image: the files of the folder that it covers, as podman has it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use isolab_images::{MERGED, Merged, run_with_merged};
use nix::unistd::geteuid;

/// Nothing that an image's maker wrote is taken for an option: `-T` and `--` come before it.
const COPY: &str = "cp";

/// What of an image a volume covers.
#[derive(Debug)]
pub(crate) struct Covered<'a> {
    /// The image's layers, topmost first.
    pub layers: &'a [PathBuf],
    /// Where the volume is mounted.
    pub target: &'a Path,
    /// Whose the volume is where the image has nothing there.
    pub user: (u32, u32),
}

impl Covered<'_> {
    /// Where the folder is in the image, without links; None where there is none. No link leads out of the image.
    pub(crate) fn path(&self) -> io::Result<Option<PathBuf>> {
        let found = Merged::new(self.layers.to_vec()).resolve(self.target, true)?;
        Ok(found.is_dir().then_some(found.path))
    }

    /// Fills the new and empty `folder`, with owners, modes, times, attributes and links.
    pub(crate) fn fill(&self, folder: &Path) -> io::Result<()> {
        let Some(path) = self.path()? else {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            let (uid, gid) = self.user;
            let is_given = geteuid().is_root();
            return if is_given { chown(folder, Some(uid), Some(gid)) } else { Ok(()) };
        };
        let mut command = Command::new(COPY);
        command.args(["--archive", "--reflink=auto", "-T", "--"]);
        command.arg(Path::new(MERGED).join(path)).arg(std::path::absolute(folder)?);
        let output = run_with_merged(self.layers, command.stdin(Stdio::null()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(first_line(COPY, &output))),
        }
    }
}

/// What a program said first of its failure.
fn first_line(program: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().next().map_or(format!("{program} {}", output.status), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn as_root_a_volume_gets_what_the_image_has_there_and_nothing_of_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let layer = dir.path().join(name);
            fs::create_dir_all(layer.join("srv/data")).unwrap();
            layer
        };
        let (top, low) = (layer("top"), layer("low"));
        fs::write(low.join("srv/data/-rf"), "low").unwrap();
        fs::write(low.join("srv/data/both"), "low").unwrap();
        fs::write(top.join("srv/data/both"), "top").unwrap();
        fs::hard_link(top.join("srv/data/both"), top.join("srv/data/link")).unwrap();
        symlink("/etc/passwd", top.join("srv/data/symlink")).unwrap();
        symlink("/srv", top.join("away")).unwrap();
        symlink("/../../../../etc", top.join("escape")).unwrap();
        fs::set_permissions(top.join("srv/data"), fs::Permissions::from_mode(0o2750)).unwrap();
        chown(top.join("srv/data"), Some(12), Some(34)).unwrap();
        xattr::set(top.join("srv/data/both"), "user.note", b"kept").unwrap();
        let layers = [top, low];
        let fill = |target: &str| {
            let volume = tempfile::tempdir_in(dir.path()).unwrap();
            let covered = Covered { layers: &layers, target: Path::new(target), user: (56, 78) };
            covered.fill(volume.path()).unwrap();
            volume
        };
        for target in ["/srv/data", "/away/data", "//srv/./data/"] {
            let volume = fill(target);
            let metadata = fs::metadata(volume.path()).unwrap();
            assert_eq!(
                (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
                (12, 34, 0o2750)
            );
            let read = |name: &str| fs::read_to_string(volume.path().join(name)).unwrap();
            assert_eq!((read("-rf"), read("both")), ("low".to_owned(), "top".to_owned()));
            let ino = |name: &str| fs::metadata(volume.path().join(name)).unwrap().ino();
            assert_eq!(ino("both"), ino("link"));
            let target = fs::read_link(volume.path().join("symlink")).unwrap();
            assert_eq!(target, Path::new("/etc/passwd"));
            let note = xattr::get(volume.path().join("both"), "user.note").unwrap();
            assert_eq!(note.unwrap(), b"kept");
        }
        for target in ["/missing", "/escape", "/srv/data/both"] {
            let volume = fill(target);
            let metadata = fs::metadata(volume.path()).unwrap();
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (56, 78, 0o755));
            assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 0, "{target}");
        }
    }
}
