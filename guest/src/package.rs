//! The executables of one package.
//!
//! As with git and cargo, `isolab image` is the executable `isolab-image`; a guest's init is `isolab-init`.
//! Each of them is looked for beside the one that runs, then where a package may put what nobody calls by
//! name, then in PATH.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Of a prefix, beside its `bin`.
const LIBEXEC: &str = "libexec/isolab";

/// An executable that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The kernel does not tell where we are ourselves.
    #[error("cannot find isolab's own executable")]
    Own(#[source] io::Error),
    /// It is nowhere.
    #[error(
        "there is no executable `{name}`, neither beside {} nor in PATH; it comes with isolab, in the \
         same package and by the same `cargo build`",
        own.display()
    )]
    Missing {
        /// Which one.
        name: String,
        /// The one that looked for it.
        own: PathBuf,
    },
}

/// The path of the executable `name` of this package.
///
/// # Errors
/// [`PackageError`].
pub fn executable(name: &str) -> Result<PathBuf, PackageError> {
    // The kernel's word for where we are, which no argv[0] can change.
    let own = env::current_exe().map_err(PackageError::Own)?;
    let own_folder = own.parent().unwrap_or(Path::new("/"));
    let libexec = own_folder.parent().map(|prefix| prefix.join(LIBEXEC));
    // And from there back.
    let bin = own_folder.ends_with(LIBEXEC).then(|| own_folder.join("../../bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let own_folders = [Some(own_folder.to_owned()), libexec, bin].into_iter().flatten();
    find_in(own_folders.chain(env::split_paths(&path)), name)
        .ok_or_else(|| PackageError::Missing { name: name.to_owned(), own })
}

fn find_in(mut folders: impl Iterator<Item = PathBuf>, name: &str) -> Option<PathBuf> {
    folders.find_map(|folder| {
        let path = folder.join(name);
        (path.is_file() && access(&path, AccessFlags::X_OK).is_ok()).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_folder_with_an_executable_of_that_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["empty", "folder", "file", "first", "second"].map(|it| dir.path().join(it));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        fs::create_dir(folders[1].join("tool")).unwrap();
        for (folder, mode) in [(&folders[2], 0o644), (&folders[3], 0o755), (&folders[4], 0o755)] {
            fs::write(folder.join("tool"), "").unwrap();
            fs::set_permissions(folder.join("tool"), Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(find_in(folders.iter().cloned(), "tool"), Some(folders[3].join("tool")));
        assert_eq!(find_in(folders.into_iter(), "other"), None);
    }

    #[test]
    fn who_misses_an_executable_is_told_its_name_and_where_it_should_be() {
        let error = executable("isolab-no-such").unwrap_err().to_string();
        let beside = env::current_exe().unwrap();
        assert!(
            error.contains("`isolab-no-such`") && error.contains(beside.to_str().unwrap()),
            "{error}"
        );
    }
}
