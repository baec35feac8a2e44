//! `isolab compose config`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use isolab_compose::{Project, to_json, to_yaml};

use crate::scope::Scope;

/// Check a project's files, and print what they come to: merged, extended, with all variables' values.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  isolab compose config --quiet\n  isolab compose config --format json | jq .services"
)]
pub struct Config {
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Check only.
    #[arg(long, short)]
    quiet: bool,
    /// Print the services' names.
    #[arg(long, group = "what")]
    services: bool,
    /// Print the volumes' names.
    #[arg(long, group = "what")]
    volumes: bool,
    /// Print the networks' names.
    #[arg(long, group = "what")]
    networks: bool,
    /// Print the services' images.
    #[arg(long, group = "what")]
    images: bool,
    /// Print the profiles' names.
    #[arg(long, group = "what")]
    profiles: bool,
    /// Write to this file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Yaml,
    Json,
}

/// Runs the command.
pub fn run(scope: &Scope, args: &Config) -> Result<ExitCode> {
    let project = scope.project()?;
    let text = text(&project, args)?;
    match &args.output {
        _ if args.quiet => {}
        Some(path) => {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(project: &Project, args: &Config) -> Result<String> {
    let lines = |names: &mut dyn Iterator<Item = String>| {
        names.map(|name| format!("{name}\n")).collect::<String>()
    };
    let services = project.select(&[], true)?;
    Ok(if args.services {
        lines(&mut services.iter().map(|name| (*name).to_owned()))
    } else if args.volumes {
        lines(&mut project.volumes.keys().cloned())
    } else if args.networks {
        lines(&mut project.networks.keys().cloned())
    } else if args.images {
        lines(&mut services.iter().map(|name| project.image(name)))
    } else if args.profiles {
        let mut all: Vec<String> =
            project.services.values().flat_map(|it| it.profiles.iter().cloned()).collect();
        all.sort();
        all.dedup();
        lines(&mut all.into_iter())
    } else if args.format == Format::Json {
        format!("{}\n", serde_json::to_string_pretty(&to_json(project))?)
    } else {
        to_yaml(project)
    })
}
