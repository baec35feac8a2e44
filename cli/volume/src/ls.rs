//! `isolab volume ls`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_command::format::Format;
use isolab_instances::Catalogue;
use isolab_isolation::volumes::{Kind, Volumes};

use crate::facts::facts;

/// List the volumes.
#[derive(Args)]
#[command(
    after_help = "Example:\n  isolab volume ls --format json | jq -r '.[] | select(.Instances == []).Name'"
)]
pub struct Ls {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the names alone.
    #[arg(long, short, conflicts_with = "format")]
    quiet: bool,
}

pub fn run(volumes: &Volumes, catalogue: &Catalogue, args: &Ls) -> Result<ExitCode> {
    let list = volumes.list()?;
    if args.quiet {
        list.iter().for_each(|volume| println!("{}", volume.name));
        return Ok(ExitCode::SUCCESS);
    }
    let users = catalogue.volume_users()?;
    let of = |name| users.get(name).map_or(&[][..], Vec::as_slice);
    if args.format == Format::Json {
        let all: Vec<_> = list.iter().map(|it| facts(volumes, it, of(&it.name))).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    let width = list.iter().map(|it| it.name.as_str().len()).max().unwrap_or(0).max(4);
    println!("{:width$}  {:<6}  INSTANCES", "NAME", "KIND");
    for volume in &list {
        let kind = match volume.kind {
            None => "-",
            Some(Kind::Folder) => "folder",
            Some(Kind::Disk) => "disk",
        };
        println!("{:width$}  {kind:<6}  {}", volume.name.as_str(), of(&volume.name).join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
