//! How a configuration names a unit: `linux.cgroupsPath` as `slice:prefix:name`, as runc has it
//! (its docs/systemd.md).

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where a container's processes are in systemd's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub slice: String,
    pub scope: String,
}

impl Name {
    /// Without a path the scope is named by the container's id, in the usual slice.
    pub fn new(path: Option<&Path>, id: &str, usual_slice: &str) -> Result<Self> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let Some(path) = path else {
            return Ok(Name { slice: usual_slice.to_owned(), scope: format!("isolab-{id}.scope") });
        };
        let text = path.to_str().unwrap_or_default();
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else {
            bail!(
                "linux.cgroupsPath {} is not of the form slice:prefix:name, as with --systemd-cgroup",
                path.display()
            );
        };
        if name.is_empty() || name.ends_with(".slice") {
            bail!(
                "linux.cgroupsPath {text}: a container's processes are in a scope, and it names none"
            );
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let scope = format!("{prefix}-{name}.scope");
        if scope.len() > 255 || !scope.bytes().all(allowed) {
            bail!("linux.cgroupsPath {text}: {scope} is no name of a unit (systemd.unit(5))");
        }
        let slice = if slice.is_empty() { usual_slice } else { slice };
        Ok(Name { slice: slice.to_owned(), scope })
    }

    /// The scope's cgroup below the manager's own: a slice `a-b.slice` is in `a.slice` (systemd.slice(5)).
    pub fn cgroup(&self) -> Result<PathBuf> {
        let parts = self.slice.strip_suffix(".slice");
        let is_root = self.slice == "-.slice";
        let Some(parts) =
            parts.filter(|parts| is_root || parts.split('-').all(|part| !part.is_empty()))
        else {
            bail!("linux.cgroupsPath: {} is no name of a slice (systemd.slice(5))", self.slice);
        };
        if parts.contains('/') {
            bail!("linux.cgroupsPath: {} is no name of a slice (systemd.slice(5))", self.slice);
        }
        let ends = parts.match_indices('-').map(|(at, _)| at).chain([parts.len()]);
        let slices = ends.filter(|_| !is_root).map(|end| format!("{}.slice", &parts[..end]));
        Ok(slices.chain([self.scope.clone()]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_in_slices_that_are_in_slices() {
        for (path, cgroup) in [
            (None, "system.slice/isolab-web.scope"),
            (Some(""), "system.slice/isolab-web.scope"),
            (Some("machine.slice:libpod:abc"), "machine.slice/libpod-abc.scope"),
            (Some("a-b-c.slice:docker:x"), "a.slice/a-b.slice/a-b-c.slice/docker-x.scope"),
            (Some(":p:n"), "system.slice/p-n.scope"),
            (Some("-.slice:p:n"), "p-n.scope"),
        ] {
            let name = Name::new(path.map(Path::new), "web", "system.slice").unwrap();
            assert_eq!(name.cgroup().unwrap(), Path::new(cgroup), "{path:?}");
        }
        for path in
            ["/a/b", "a.slice:b", "a:b:c:d", "a.slice:b:", "a.slice:b:c.slice", "a.slice:b:c/d"]
        {
            assert!(Name::new(Some(Path::new(path)), "web", "system.slice").is_err(), "{path}");
        }
        for slice in ["a", "a/b.slice", "--.slice", "a--b.slice", "a-.slice"] {
            let name = Name { slice: slice.to_owned(), scope: "x.scope".to_owned() };
            assert!(name.cgroup().is_err(), "{slice}");
        }
    }
}
