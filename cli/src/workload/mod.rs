//! What `isolab run` and `isolab create` are told of an instance.

mod common;
mod filesystem;
mod network;
mod patience;
mod security;
mod seldom;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use isolab_command::environment::with_our_values;
use isolab_command::logging::Logging;
use isolab_images::{Image, Store};
use isolab_instances::{Config, RestartPolicy};
use isolab_isolation::{InstanceFolder, Limits, Request, oci};
use tracing::info_span;

pub use self::common::Common;
pub use self::seldom::Seldom;

/// The options. Those that nearly every command line has are apart from the others: see [`Common`].
#[derive(Debug, clap::Args)]
pub struct Workload {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub seldom: Seldom,
}

impl Workload {
    /// Finds the image, or has it fetched. None where that failed, which was told.
    pub fn image(&self, logging: &Logging) -> Result<Option<Image>> {
        let Self { common, seldom } = self;
        if let Some(path) = seldom.cidfile.as_ref().filter(|path| path.exists()) {
            bail!("--cidfile: {} exists already", path.display());
        }
        info_span!("image", name = common.image)
            .in_scope(|| seldom.obtain.image(&Store::open_default()?, &common.image, logging))
    }

    /// Whether the instance lives in a process of its own, also when somebody watches.
    pub fn is_supervised(&self) -> bool {
        self.seldom.restart != RestartPolicy::No
    }

    /// What is asked for, in full: what we have of environment and files is in it. And what follows from it, which
    /// is looked up in the image.
    pub fn config(&self, folder: &InstanceFolder, image: &Image) -> Result<(Config, oci::Spec)> {
        let Self { common, seldom } = self;
        let request = self.request(folder)?;
        let (mut config, spec) = Config::of_image(&common.image, image, request, common.isolation)?;
        config.stop_signal = seldom.stop_signal.unwrap_or(config.stop_signal);
        config.kernel = common.kernel.clone().or(config.kernel);
        config.patience = seldom.patience.patience(common.isolation)?;
        config.networking = common.network.networking();
        config.networking.check(common.isolation)?;
        (config.interactive, config.terminal) = (common.interactive, common.tty);
        (config.auto_remove, config.restart) = (common.rm, seldom.restart);
        config.health = seldom.health.options()?.check(image.healthcheck());
        config.stop_timeout = seldom.stop_timeout;
        config.labels.extend(seldom.label.iter().map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            (name.to_owned(), value.to_owned())
        }));
        config.log = seldom.log_options();
        Ok((config, spec))
    }

    /// What the workload is to be.
    pub fn request(&self, folder: &InstanceFolder) -> Result<Request> {
        let Self { common, seldom } = self;
        let hostname = seldom.hostname.clone().filter(|name| !name.is_empty());
        let mut env = Vec::new();
        if common.tty {
            // As podman has it; one that is asked for comes later and wins.
            env.push("TERM=xterm".to_owned());
        }
        for file in &seldom.env_file {
            env.extend(read_variables(file)?);
        }
        env.extend(common.env.iter().cloned());
        Ok(Request {
            entrypoint: common.entrypoint.as_deref().map(parse_entrypoint).transpose()?,
            command: common.command.clone(),
            env: with_our_values(env),
            workdir: common.workdir.clone(),
            user: common.user.clone(),
            hostname: hostname.unwrap_or_else(|| folder.name().to_hostname()),
            limits: Limits {
                memory_bytes: common.memory.filter(|bytes| *bytes != 0),
                cpus: common.cpus.filter(|cpus| *cpus != 0.0),
                pids: seldom
                    .pids_limit
                    .and_then(|limit| u32::try_from(limit).ok())
                    .filter(|n| *n != 0),
            },
            filesystem: seldom.filesystem.read(&common.volume)?,
            security: seldom.security.security()?,
        })
    }

    /// Writes the id where it is wanted.
    pub fn write_id(&self, id: &str) -> Result<()> {
        let Some(path) = &self.seldom.cidfile else { return Ok(()) };
        fs::write(path, id).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn parse_entrypoint(text: &str) -> Result<Vec<String>> {
    match text {
        "" => Ok(Vec::new()),
        list if list.starts_with('[') => serde_json::from_slice(list.as_bytes())
            .context("--entrypoint: not a JSON array of strings"),
        word => Ok(vec![word.to_owned()]),
    }
}

fn read_variables(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().map(str::trim_start);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}
