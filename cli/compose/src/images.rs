//! Images of services: `isolab compose build` and `pull`, and what `up` does of both.
//!
//! `isolab-image` does them, as it does for `isolab run`: its progress and its reasons are its own to tell.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_command::fetch::{Access, Policy};
use isolab_command::logging::Logging;
use isolab_command::obtain::Obtain;
use isolab_compose::Project;
use isolab_compose::model::{self, PullPolicy};
use isolab_guest::package;
use isolab_images::Store;

use crate::scope::Scope;

/// Build the images of services that say how.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose build --no-cache app")]
pub struct Build {
    /// Do every step, also where the cache has its outcome.
    #[arg(long)]
    no_cache: bool,
    /// A value for an ARG, over the files'; can be repeated.
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Do not tell the steps.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    access: Access,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `build`.
pub fn build(scope: &Scope, args: &Build, logging: &Logging) -> Result<ExitCode> {
    let project = scope.project()?;
    for name in project.select(&args.services, false)? {
        let Some(build) = &project.services[name].build else { continue };
        let mut words = build_words(&project, name, build);
        words.extend(args.no_cache.then(|| "--no-cache".into()));
        words.extend(args.quiet.then(|| "--quiet".into()));
        words.extend(args.build_arg.iter().map(|it| format!("--build-arg={it}").into()));
        words.extend(args.access.to_arguments());
        run_build(name, build, words, logging)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetch the images of services from their registries.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose pull web db")]
pub struct Pull {
    /// When to fetch.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "always")]
    policy: Policy,
    /// Also those that can be built.
    #[arg(long)]
    include_buildable: bool,
    /// Show no progress bars.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    access: Access,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `pull`.
pub fn pull(scope: &Scope, args: &Pull, logging: &Logging) -> Result<ExitCode> {
    let project = scope.project()?;
    for name in project.select(&args.services, false)? {
        if project.services[name].build.is_none() || args.include_buildable {
            let (pull, quiet, access) = (args.policy, args.quiet, args.access.clone());
            fetch(&project, name, Obtain { pull, quiet, access }, logging)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How `up` comes to its images.
pub struct Preparation<'a> {
    /// Whether those that can be built are, also if they are there.
    pub build: bool,
    /// Whether none is built.
    pub no_build: bool,
    /// When to fetch, whatever the files say.
    pub policy: Option<Policy>,
    /// How registries are reached.
    pub access: &'a Access,
}

/// Has the images of these services in the store, unpacked.
pub fn prepare(
    project: &Project,
    services: &[&str],
    how: &Preparation,
    logging: &Logging,
) -> Result<()> {
    let store = Store::open_default()?;
    for name in services {
        let service = &project.services[*name];
        let image = project.image(name);
        let said = service.pull_policy;
        let buildable = service.build.as_ref().filter(|_| !how.no_build);
        if let Some(build) = buildable
            && (how.build || said == PullPolicy::Build || store.resolve(&image).is_err())
        {
            let mut words = build_words(project, name, build);
            words.extend(how.access.to_arguments());
            run_build(name, build, words, logging)?;
        }
        let policy = match (how.policy, said) {
            // What is built is in no registry.
            _ if service.build.is_some() => Policy::Never,
            (Some(policy), _) => policy,
            (None, PullPolicy::Always) => Policy::Always,
            (None, PullPolicy::Missing) => Policy::Missing,
            (None, PullPolicy::Never | PullPolicy::Build) => Policy::Never,
        };
        fetch(
            project,
            name,
            Obtain { pull: policy, quiet: false, access: how.access.clone() },
            logging,
        )?;
    }
    Ok(())
}

fn fetch(project: &Project, service: &str, how: Obtain, logging: &Logging) -> Result<()> {
    let image = project.image(service);
    let found = how.image(&Store::open_default()?, &image, logging);
    match found.with_context(|| format!("service `{service}`"))? {
        Some(_) => Ok(()),
        // It was told why.
        None => bail!("service `{service}`: image `{image}` cannot be had"),
    }
}

/// What `isolab image build` is told, but for the folder.
fn build_words(project: &Project, service: &str, build: &model::Build) -> Vec<OsString> {
    let tags = std::iter::once(project.image(service)).chain(build.tags.iter().cloned());
    let mut words: Vec<OsString> = tags.map(|tag| format!("--tag={tag}").into()).collect();
    let mut path = |option: &str, path: &std::path::Path| {
        let mut word = OsString::from(option);
        word.push(path);
        words.push(word);
    };
    if let Some(file) = &build.dockerfile {
        path("--file=", file);
    }
    for (id, file) in &build.secrets {
        path(&format!("--secret=id={id},src="), file);
    }
    for (name, value) in &build.args {
        let value = value.as_ref().map_or(String::new(), |value| format!("={value}"));
        words.push(format!("--build-arg={name}{value}").into());
    }
    words.extend(build.target.iter().map(|stage| format!("--target={stage}").into()));
    words.extend(build.platform.iter().map(|it| format!("--platform={it}").into()));
    words.extend(build.no_cache.then(|| "--no-cache".into()));
    words.extend(build.host_network.then(|| "--network=host".into()));
    words
}

fn run_build(
    service: &str,
    build: &model::Build,
    words: Vec<OsString>,
    logging: &Logging,
) -> Result<()> {
    let path = package::executable("isolab-image")?;
    eprintln!("Building {service}");
    let mut command = Command::new(&path);
    command.args(logging.to_arguments()).arg("build").args(words).arg("--").arg(&build.context);
    // It prints the image's digest, which nobody asked for.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().with_context(|| format!("cannot execute {}", path.display()))?;
    match status.success() {
        true => Ok(()),
        false => bail!("service `{service}`: its image cannot be built"),
    }
}
