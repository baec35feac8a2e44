//! Kernel modules that a guest needs, with those that they need.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::initramfs::Module;
use crate::kernels::GuestKernel;

/// A module that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The kernel neither has it built in nor as a file.
    #[error("the guest kernel {kernel} has no module {module}")]
    Missing {
        /// The kernel's name, for example `stock`, or its file.
        kernel: String,
        /// The module's name, without `.ko`.
        module: String,
    },
    /// depmod's lists or a module cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The module's file, or an index of modules.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The modules called `names` and what they need, in the order to load them in. Empty for a kernel
/// without modules, which has everything built in.
///
/// # Errors
/// [`ModuleError`].
pub fn with_dependencies(kernel: &GuestKernel, names: &[&str]) -> Result<Vec<Module>, ModuleError> {
    let (Some(modules), Some(release)) = (&kernel.modules, &kernel.release) else {
        return Ok(Vec::new());
    };
    let root = modules.join("lib/modules").join(release);
    let list = read(&root.join("modules.dep"))?;
    let builtin = read(&root.join("modules.builtin"))?;
    let needs = parse(&list);
    let mut order = Vec::new();
    for name in names {
        if builtin.lines().any(|path| is_module(path, name)) {
            continue;
        }
        let path = needs.keys().copied().find(|path| is_module(path, name));
        let path = path.ok_or_else(|| ModuleError::Missing {
            kernel: kernel.name.clone(),
            module: (*name).to_owned(),
        })?;
        add(path, &needs, &mut order);
    }
    order.into_iter().map(|path| load(&root.join(path))).collect()
}

/// modules.dep(5): a file and what it needs, each relative to the list.
fn parse(list: &str) -> BTreeMap<&str, Vec<&str>> {
    let lines = list.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(path, needed)| (path, needed.split_whitespace().collect())).collect()
}

/// Whether a path is that of the module `name`; dash and underscore are the same (modprobe(8)).
fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").is_some_and(|file| file.replace('-', "_") == name)
}

/// Adds a module behind those that it needs.
fn add<'a>(path: &'a str, needs: &BTreeMap<&'a str, Vec<&'a str>>, order: &mut Vec<&'a str>) {
    if order.contains(&path) {
        return;
    }
    for needed in needs.get(path).into_iter().flatten() {
        add(needed, needs, order);
    }
    // Again, for a list that goes in circles.
    if !order.contains(&path) {
        order.push(path);
    }
}

fn load(path: &Path) -> Result<Module, ModuleError> {
    let content =
        fs::read(path).map_err(|source| ModuleError::Read { path: path.to_owned(), source })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Module { name, content })
}

fn read(path: &Path) -> Result<String, ModuleError> {
    fs::read_to_string(path).map_err(|source| ModuleError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(folder: &Path) -> GuestKernel {
        let root = folder.join("lib/modules/6.1");
        fs::create_dir_all(root.join("kernel")).unwrap();
        let list =
            "kernel/c.ko: kernel/b-b.ko kernel/a.ko\nkernel/b-b.ko: kernel/a.ko\nkernel/a.ko:\n";
        fs::write(root.join("modules.dep"), list).unwrap();
        fs::write(root.join("modules.builtin"), "kernel/in-side.ko\n").unwrap();
        for name in ["a", "b-b", "c"] {
            fs::write(root.join(format!("kernel/{name}.ko")), name).unwrap();
        }
        GuestKernel {
            name: "test".to_owned(),
            image: PathBuf::new(),
            release: Some("6.1".to_owned()),
            modules: Some(folder.to_owned()),
            lease: None,
        }
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = kernel(folder.path());
        let modules = with_dependencies(&kernel, &["b_b", "c", "in_side"]).unwrap();
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["a.ko", "b-b.ko", "c.ko"]);
        assert_eq!(modules[1].content, b"b-b");
        let missing = with_dependencies(&kernel, &["d"]).err().unwrap().to_string();
        assert!(missing.contains("no module d"), "{missing}");
    }

    #[test]
    fn a_kernel_without_modules_needs_none() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = GuestKernel { modules: None, ..kernel(folder.path()) };
        assert!(with_dependencies(&kernel, &["anything"]).unwrap().is_empty());
    }
}
