//! `isolab volume create`

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use isolab_command::format::parse_size;
use isolab_isolation::volumes::{Kind, NewVolume, VolumeName, Volumes};

/// Make a volume, and print its name.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  isolab volume create --label team=web data\n  isolab volume create --opt type=disk --opt size=2G pcdata"
)]
pub struct Create {
    /// What you want to know of it, KEY=VALUE; can be repeated.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// type=folder or type=disk, else its first use decides; size=SIZE, how much a disk has room for (8G).
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_option)]
    opt: Vec<Opt>,
    /// A volume of that name that is there already is as good.
    #[arg(long)]
    ignore: bool,
    /// Its name; without, a random one.
    name: Option<VolumeName>,
}

/// One of `--opt`.
#[derive(Clone, Copy)]
enum Opt {
    Type(Kind),
    Size(u64),
}

pub fn run(volumes: &Volumes, args: &Create) -> Result<ExitCode> {
    let mut new = NewVolume {
        name: args.name.clone(),
        labels: args.label.iter().cloned().collect(),
        ..NewVolume::default()
    };
    for opt in &args.opt {
        match *opt {
            Opt::Type(kind) => new.kind = Some(kind),
            Opt::Size(size) => new.size = Some(size),
        }
    }
    if new.kind == Some(Kind::Folder) && new.size.is_some() {
        bail!("--opt size: a folder has as much room as its file system on the host");
    }
    if let Some(name) = args.name.as_ref().filter(|_| args.ignore)
        && volumes.get(name).is_ok()
    {
        println!("{name}");
        return Ok(ExitCode::SUCCESS);
    }
    // Only a disk has a size.
    new.kind = new.kind.or(new.size.map(|_| Kind::Disk));
    println!("{}", volumes.create(new)?.name);
    Ok(ExitCode::SUCCESS)
}

fn parse_option(text: &str) -> Result<Opt, String> {
    match text.split_once('=') {
        Some(("type", "folder")) => Ok(Opt::Type(Kind::Folder)),
        Some(("type", "disk")) => Ok(Opt::Type(Kind::Disk)),
        Some(("size", size)) => parse_size(size).map(Opt::Size),
        _ => Err("expected type=folder, type=disk or size=SIZE".to_owned()),
    }
}

/// As podman's: a key alone has an empty value.
fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key.is_empty() {
        true => Err("a label has a key".to_owned()),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}
