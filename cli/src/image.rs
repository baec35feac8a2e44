//! `isolab image`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use isolab_images::{ImageRecord, Store};

use crate::format::Format;

/// Manage the images in the local store.
#[derive(Debug, Args)]
pub struct Image {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(Load),
    Ls(Ls),
}

/// Take in the images of an OCI image layout and print their names.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image load busybox.tar")]
struct Load {
    /// A folder that is an OCI image layout, or a tar archive of one.
    path: PathBuf,
    /// Name the image so; needed where the layout holds no name.
    #[arg(long, short, value_name = "NAME")]
    tag: Option<String>,
}

/// List the images.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image ls --format json")]
struct Ls {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub fn run(image: Image) -> Result<ExitCode> {
    let store = Store::open_default()?;
    match image.command {
        Command::Load(load) => {
            for image in store.load(&load.path, load.tag.as_deref())? {
                println!("{}", image.reference().unwrap_or(image.digest()));
            }
        }
        Command::Ls(ls) => list(&store.list()?, ls.format)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(records: &[ImageRecord], format: Format) -> Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(records)?);
        return Ok(());
    }
    println!("{:<48} {:<12} {:>10}  CREATED", "NAME", "DIGEST", "SIZE");
    for record in records {
        let name = record.reference.as_deref().unwrap_or("-");
        let digits = record.digest.trim_start_matches("sha256:");
        let created = record.created.as_deref().unwrap_or("-");
        let size = format!("{:.1} MB", record.size as f64 / 1e6);
        println!("{name:<48} {:<12} {size:>10}  {created}", &digits[..digits.len().min(12)]);
    }
    Ok(())
}
