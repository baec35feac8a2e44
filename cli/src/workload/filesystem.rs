//! The options about an instance's file system: volumes and other mounts, and names of hosts.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the text is --help's, where brackets are what may be left out"
)]

mod host_entry;
mod mount;
mod tmpfs;
mod volume;

use std::path::Path;

use anyhow::{Context, Result, bail};
use isolab_isolation::{Filesystem, HostEntry, MountSource, VolumeMount};

/// What is seen beside the image's files.
#[derive(Debug, clap::Args)]
pub struct FilesystemOptions {
    /// As --volume, in words: type=bind|volume|tmpfs,source=…,target=…[,ro]. More: volume-nocopy,
    /// bind-propagation=…, bind-nonrecursive, tmpfs-size=…, tmpfs-mode=….
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Mount memory at a path: PATH[:OPTIONS] such as size=64M,mode=1777,noexec; it goes with the run.
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<String>,
    /// The image's files cannot be written, nor others be made beside them.
    #[arg(long)]
    read_only: bool,
    /// With --read-only, memory on /run, /tmp and /var/tmp, which can be written.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    read_only_tmpfs: bool,
    /// A line of /etc/hosts: NAME[;NAME…]:ADDRESS.
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host_entry::parse)]
    add_host: Vec<HostEntry>,
}

impl Default for FilesystemOptions {
    fn default() -> Self {
        Self {
            mount: Vec::new(),
            tmpfs: Vec::new(),
            read_only: false,
            read_only_tmpfs: true,
            add_host: Vec::new(),
        }
    }
}

/// What --read-only leaves to be written, with its mode; /dev/shm is memory anyway.
const WRITABLE: [(&str, &str); 3] = [("/run", "0755"), ("/tmp", "1777"), ("/var/tmp", "1777")];

impl FilesystemOptions {
    /// What is asked for, with these `volumes` (`--volume`).
    pub fn read(&self, volumes: &[String]) -> Result<Filesystem> {
        let mut mounts: Vec<VolumeMount> = Vec::new();
        let volumes = volumes.iter().map(|text| {
            volume::parse(text).with_context(|| format!("--volume {}", text.escape_debug()))
        });
        let others = self.mount.iter().map(|text| {
            mount::parse(text).with_context(|| format!("--mount {}", text.escape_debug()))
        });
        let memory = self.tmpfs.iter().map(|text| {
            tmpfs::parse(text).with_context(|| format!("--tmpfs {}", text.escape_debug()))
        });
        for mount in volumes.chain(others).chain(memory) {
            let mount = mount?;
            if mounts.iter().any(|other| other.target == mount.target) {
                bail!("{}: two mounts on one path", mount.target.display());
            }
            mounts.push(mount);
        }
        for (target, mode) in WRITABLE.iter().filter(|_| self.read_only && self.read_only_tmpfs) {
            if !mounts.iter().any(|mount| mount.target == Path::new(target)) {
                mounts.push(tmpfs::writable(target, mode));
            }
        }
        Ok(Filesystem { mounts, read_only: self.read_only, hosts: self.add_host.clone() })
    }
}

/// The path in the instance.
fn target(text: &str) -> Result<std::path::PathBuf> {
    let target = VolumeMount::target(Path::new(text));
    target.with_context(|| {
        format!(
            "`{}`: the path in the instance is to be absolute, without `..`, and not /",
            text.escape_debug()
        )
    })
}

/// A folder or file of the host, which is there.
fn host_path(text: &str) -> Result<MountSource> {
    let path = std::path::absolute(text).with_context(|| format!("`{}`", text.escape_debug()))?;
    path.metadata().with_context(|| format!("cannot use {}", path.display()))?;
    Ok(MountSource::Host(path))
}
