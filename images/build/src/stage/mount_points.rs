//! Mount points that a command needed and the image does not get from having been built.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isolab_images::ingest::is_real_folder;
use isolab_images::{Merged, StepMount};

/// What every container has mounted, and a runtime makes folders for.
const USUAL: [&str; 3] = ["/proc", "/dev", "/sys"];

/// Places that are not in the image, with the folders above them that are not, deepest first.
pub(super) struct MountPoints(Vec<PathBuf>);

impl MountPoints {
    /// Those of `mounts` that `image` has nothing at.
    pub(super) fn missing(image: &Merged, mounts: &[StepMount]) -> io::Result<Self> {
        let mut missing = Vec::new();
        for target in mounts.iter().map(|mount| mount.target.as_str()).chain(USUAL) {
            let place = image.resolve(Path::new(target), true)?.path;
            for path in place.ancestors().filter(|path| *path != Path::new("")) {
                if image.stat(path)?.is_none() {
                    missing.push(path.to_owned());
                }
            }
        }
        missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        missing.dedup();
        Ok(Self(missing))
    }

    /// Removes them where they are empty, as nobody but the runtime wanted them. The command is
    /// over, so that no folder becomes a link between the look and the act.
    pub(super) fn remove_from(&self, upper: &Path) -> io::Result<()> {
        for path in &self.0 {
            if !is_real_folder(upper, path.parent().unwrap_or(Path::new(""))) {
                continue;
            }
            let place = upper.join(path);
            let Ok(metadata) = fs::symlink_metadata(&place) else { continue };
            if metadata.is_dir() {
                match fs::remove_dir(&place) {
                    Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                        return Err(error);
                    }
                    _ => {}
                }
            } else if metadata.is_file() && metadata.len() == 0 {
                fs::remove_file(&place)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use isolab_images::Mounted;

    use super::*;

    #[test]
    fn only_what_is_empty_and_new_goes_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (image, upper, host) = (dir.path().join("i"), dir.path().join("u"), dir.path());
        fs::create_dir_all(image.join("root")).unwrap();
        for folder in ["root/.cache/pip", "kept/empty", "used", "run/secrets"] {
            fs::create_dir_all(upper.join(folder)).unwrap();
        }
        fs::write(upper.join("run/secrets/key"), "").unwrap();
        fs::write(upper.join("used/file"), "").unwrap();
        // The command put a link where a folder was.
        fs::create_dir_all(host.join("outside/empty")).unwrap();
        symlink(host.join("outside"), upper.join("link")).unwrap();
        let targets = ["/root/.cache/pip", "/used", "/run/secrets/key", "/link/empty"];
        let what = Mounted::Memory { size: None };
        let mounts = targets.map(|it| StepMount { target: it.to_owned(), what: what.clone() });
        let points = MountPoints::missing(&Merged::new(vec![image]), &mounts).unwrap();
        points.remove_from(&upper).unwrap();
        let exists = |path: &str| upper.join(path).exists();
        assert!(exists("root") && !exists("root/.cache") && !exists("run"));
        assert!(exists("used/file") && exists("kept/empty"));
        assert!(host.join("outside/empty").exists());
    }
}
