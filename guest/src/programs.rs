//! The host's own programs, for guests whose user space is made of them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::archive::Archive;

/// Folders that hold programs of the administrator's, which PATH often lacks.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program that cannot be taken along.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Not on PATH.
    #[error("the program `{0}` is not installed (on Debian: apt-get install {1})")]
    Missing(String, String),
    /// `ldd` failed, or a file cannot be read.
    #[error("cannot {action} {path}")]
    Host {
        /// What was attempted: a verb, for example `start`.
        action: &'static str,
        /// The file that it was attempted on.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The file of the program `name` of the Debian package `package`.
///
/// # Errors
/// [`ProgramError::Missing`].
pub fn find(name: &str, package: &str) -> Result<PathBuf, ProgramError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| ProgramError::Missing(name.to_owned(), package.to_owned()))
}

/// `program` and every file that the loader needs to run it: itself and the shared libraries.
///
/// # Errors
/// [`ProgramError::Host`].
pub fn files(program: &Path) -> Result<BTreeSet<PathBuf>, ProgramError> {
    let failed = |source| ProgramError::Host {
        action: "list the libraries of",
        path: program.to_owned(),
        source,
    };
    let listed = Command::new("ldd").arg(program).output().map_err(failed)?;
    let mut files = libraries(&String::from_utf8_lossy(&listed.stdout));
    // A static program has none, which ldd tells by failing.
    files.insert(program.to_owned());
    Ok(files)
}

/// Adds `programs` to an archive with what they need, all at their own paths.
///
/// # Errors
/// [`ProgramError::Host`].
pub fn add(archive: &mut Archive, programs: &[PathBuf]) -> Result<(), ProgramError> {
    let mut all = BTreeSet::new();
    for program in programs {
        all.extend(files(program)?);
    }
    for path in all {
        let failed = |source| ProgramError::Host { action: "read", path: path.clone(), source };
        let content = fs::read(&path).map_err(failed)?;
        archive.file(&path.to_string_lossy(), 0o755, &content).map_err(failed)?;
    }
    Ok(())
}

/// The files in what ldd prints: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-….so.2 (0x…)`.
fn libraries(listing: &str) -> BTreeSet<PathBuf> {
    let words = listing.lines().flat_map(str::split_whitespace);
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_the_libraries_are_listed() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(listing), expected.map(PathBuf::from).into());
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn a_program_comes_with_what_it_needs() {
        let shell = find("sh", "dash").unwrap();
        assert!(files(&shell).unwrap().contains(&shell));
        let mut archive = Archive::new();
        add(&mut archive, &[shell]).unwrap();
        assert!(archive.finish().unwrap().len() > 1000);
        let missing = find("no-such-program", "a-package").unwrap_err().to_string();
        assert!(missing.contains("no-such-program") && missing.contains("a-package"), "{missing}");
    }
}
