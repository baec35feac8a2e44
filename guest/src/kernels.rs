//! Which guest kernel a machine starts from: one of the cache, which `isolab kernel` fills, or a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use nix::fcntl::{Flock, FlockArg};

use crate::kernel_cache::{self, KernelCache, image_in};

/// A guest kernel that exists.
#[derive(Clone, Debug)]
pub struct GuestKernel {
    /// Its name in the cache (`slim`, `stock`, `cloud`), or the path it was chosen by.
    pub name: String,
    /// A vmlinux or bzImage.
    pub image: PathBuf,
    /// `uname -r`, where the cache knows it.
    pub release: Option<String>,
    /// The root of its `lib/modules`, if it has modules.
    pub modules: Option<PathBuf>,
    /// Keeps it in the cache.
    #[expect(dead_code, reason = "held for its Drop")]
    pub(crate) lease: Option<Arc<Flock<File>>>,
}

impl fmt::Display for GuestKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = self.release.as_deref().unwrap_or("unknown release");
        write!(f, "{} ({release})", self.name)
    }
}

/// No kernel where one was looked for.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The choice names neither a file nor a kernel of the cache.
    #[error("there is no guest kernel `{0}`: it is neither a file nor the name of a kernel in {1}")]
    Unknown(String, PathBuf),
    /// There is no kernel at all.
    #[error("there is no guest kernel in {0}")]
    NoneFound(PathBuf),
}

/// The kernel that `choice` (a name or a path) stands for; without a choice the first of
/// `preferred` that exists.
///
/// # Errors
/// [`KernelError`].
pub fn find(choice: Option<&str>, preferred: &[&str]) -> Result<GuestKernel, KernelError> {
    find_in(KernelCache::open_default().folder(), choice, preferred)
}

fn find_in(
    kernels: &Path,
    choice: Option<&str>,
    preferred: &[&str],
) -> Result<GuestKernel, KernelError> {
    let Some(choice) = choice else {
        return preferred
            .iter()
            .find_map(|name| cached(kernels, name))
            .ok_or_else(|| KernelError::NoneFound(kernels.to_owned()));
    };
    let path = Path::new(choice);
    if path.is_file() {
        return Ok(GuestKernel {
            name: choice.to_owned(),
            image: path.to_owned(),
            release: None,
            modules: None,
            lease: None,
        });
    }
    cached(kernels, choice)
        .ok_or_else(|| KernelError::Unknown(choice.to_owned(), kernels.to_owned()))
}

fn cached(kernels: &Path, name: &str) -> Option<GuestKernel> {
    // A name is one component, so that `--kernel ../x` is a path or nothing.
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return None;
    }
    let dir = kernels.join(name);
    let lease = match kernel_cache::lock(&dir, FlockArg::LockSharedNonblock) {
        Ok(lease) => Some(Arc::new(lease)),
        // It is being removed.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
        // There is none, or a file system without locks.
        Err(_) => None,
    };
    let image = image_in(&dir)?;
    let release = fs::read_to_string(dir.join("version")).ok().map(|v| v.trim().to_owned());
    let modules = Some(dir.join("modules")).filter(|m| m.is_dir());
    Some(GuestKernel { name: name.to_owned(), image, release, modules, lease })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_with(kernels: &[(&str, &str)]) -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        for (name, file) in kernels {
            fs::create_dir_all(cache.path().join(name)).unwrap();
            fs::write(cache.path().join(name).join(file), "").unwrap();
            fs::write(cache.path().join(name).join("version"), "6.1.0\n").unwrap();
        }
        cache
    }

    #[test]
    fn the_first_preferred_kernel_that_exists_is_taken() {
        let cache = cache_with(&[("stock", "vmlinuz"), ("cloud", "vmlinuz")]);
        let kernel = find_in(cache.path(), None, &["slim", "stock", "cloud"]).unwrap();
        assert_eq!(kernel.name, "stock");
        assert_eq!(kernel.image, cache.path().join("stock/vmlinuz"));
        assert_eq!(kernel.release.as_deref(), Some("6.1.0"));
    }

    #[test]
    fn a_choice_is_a_name_or_a_file() {
        let cache = cache_with(&[("slim", "vmlinux")]);
        assert_eq!(find_in(cache.path(), Some("slim"), &[]).unwrap().name, "slim");
        let file = cache.path().join("slim/vmlinux");
        let chosen = find_in(cache.path(), file.to_str(), &[]).unwrap();
        assert_eq!(chosen.image, file);
        for wrong in ["slam", "../slim", ""] {
            let error = find_in(cache.path(), Some(wrong), &[]).unwrap_err();
            assert!(matches!(error, KernelError::Unknown(..)), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_empty_cache_has_none() {
        let cache = cache_with(&[]);
        let error = find_in(cache.path(), None, &["slim"]).unwrap_err();
        assert!(matches!(error, KernelError::NoneFound(_)), "{error}");
    }
}
