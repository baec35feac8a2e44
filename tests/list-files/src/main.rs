//! Lists the files below a folder, one line each, with everything that an image keeps of them.
//!
//! ```text
//! list-files FOLDER [PATH-TO-LEAVE-OUT]...
//! ```
//!
//! Left out on purpose, as it belongs to the file system and not to the file: size and number of
//! links of folders, blocks, inode numbers, times of access and change. Left out, too, is the time
//! of FOLDER itself: runtimes make mount points in a root.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sha2::{Digest as _, Sha256};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let Some(root) = arguments.next() else {
        eprintln!("usage: list-files FOLDER [PATH-TO-LEAVE-OUT]...");
        return ExitCode::from(2);
    };
    let left_out: Vec<PathBuf> = arguments.collect();
    let listed = list(&root, &left_out);
    match listed.and_then(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("list-files: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder itself and everything below it, sorted.
fn list(root: &Path, left_out: &[PathBuf]) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let name = Path::new("/").join(path.strip_prefix(root).unwrap_or(&path));
        if left_out.contains(&name) {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).map_err(|e| about(&path, &e))?;
        lines.push(line(&name, &path, &metadata).map_err(|e| about(&path, &e))?);
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(|e| about(&path, &e))? {
                waiting.push(entry?.path());
            }
        }
    }
    lines.sort();
    Ok(lines.concat())
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn line(name: &Path, path: &Path, metadata: &Metadata) -> io::Result<String> {
    let kind = metadata.file_type();
    let letter = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_block_device() => 'b',
        () if kind.is_char_device() => 'c',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () => '-',
    };
    let mut line = format!(
        "{} {letter}{:04o} {}:{}",
        escaped(name.as_os_str().as_bytes()),
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
    );
    let mut add = |field: String| line.write_str(&field).map_err(io::Error::other);
    if name != Path::new("/") {
        add(format!(" mtime={}.{:09}", metadata.mtime(), metadata.mtime_nsec()))?;
    }
    if !kind.is_dir() {
        add(format!(" size={} links={}", metadata.size(), metadata.nlink()))?;
    }
    if kind.is_block_device() || kind.is_char_device() {
        let (major, minor) = device(metadata.rdev());
        add(format!(" device={major}:{minor}"))?;
    }
    if kind.is_symlink() {
        add(format!(" to={}", escaped(fs::read_link(path)?.as_os_str().as_bytes())))?;
    }
    if kind.is_file() {
        let mut hasher = Sha256::new();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 16];
        while let count @ 1.. = io::Read::read(&mut file, &mut buffer)? {
            hasher.update(&buffer[..count]);
        }
        add(format!(" sha256={}", hex(&hasher.finalize())))?;
    }
    let mut attributes: Vec<_> = xattr::list(path)?.collect();
    attributes.sort();
    for attribute in attributes {
        let value = xattr::get(path, &attribute)?.unwrap_or_default();
        add(format!(" {}={}", escaped(attribute.as_bytes()), hex(&value)))?;
    }
    Ok(line + "\n")
}

/// Printable, without spaces: fields are told apart by them.
fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As glibc packs major and minor (sys/sysmacros.h).
fn device(rdev: u64) -> (u64, u64) {
    let major = ((rdev >> 8) & 0xfff) | ((rdev >> 32) & !0xfff);
    let minor = (rdev & 0xff) | ((rdev >> 12) & !0xff);
    (major, minor & 0xffff_ffff)
}
