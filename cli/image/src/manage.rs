//! `isolab image tag`, `rm` and `prune`

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use isolab_command::format::{Format, bytes};
use isolab_images::{Removed, Store};

/// Give an image one more name.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image tag busybox localhost:5000/busybox:1.36")]
pub struct Tag {
    /// The image, by name or digest.
    image: String,
    /// Its new name.
    name: String,
    /// How to print the full name.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Take names away; an image without a name is removed, unless an instance runs from it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image rm busybox")]
pub struct Rm {
    /// The images, by name or digest.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// With a digest: take all its names away.
    #[arg(long, short)]
    force: bool,
    /// How to print what was removed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Remove nameless images and whatever no image needs, except what running instances use, and
/// what interrupted commands left.
///
/// What build steps made stays, to be found again by the next build.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  isolab image prune --build-cache\n  isolab image prune --all")]
pub struct Prune {
    /// Also remove named images that no instance runs from, and the build cache.
    #[arg(long, short)]
    all: bool,
    /// Also remove what build steps made.
    #[arg(long)]
    build_cache: bool,
    /// How to print what was removed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn tag(store: &Store, args: &Tag) -> Result<()> {
    let name = store.tag(&args.image, &args.name)?;
    match args.format {
        Format::Table => println!("{name}"),
        Format::Json => println!("{}", serde_json::json!({"name": name})),
    }
    Ok(())
}

pub fn remove(store: &Store, args: &Rm) -> Result<()> {
    let mut all = Removed::default();
    for image in &args.images {
        let removed = store.remove(image, args.force)?;
        all.untagged.extend(removed.untagged);
        all.deleted.extend(removed.deleted);
        all.freed += removed.freed;
        all.kept_by_build_cache = removed.kept_by_build_cache;
        all.hindered = removed.hindered;
    }
    tell(&all, args.format)
}

pub fn prune(store: &Store, args: &Prune) -> Result<()> {
    let what = isolab_images::Prune { named: args.all, build_cache: args.all || args.build_cache };
    tell(&store.prune(what)?, args.format)
}

fn tell(removed: &Removed, format: Format) -> Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(removed)?);
        return Ok(());
    }
    if let Some(why) = &removed.hindered {
        eprintln!("isolab: nothing but names was removed: {why}");
    }
    let mut text = String::new();
    for name in &removed.untagged {
        writeln!(text, "untagged {name}")?;
    }
    for digest in &removed.deleted {
        writeln!(text, "deleted {digest}")?;
    }
    writeln!(text, "freed {}", bytes(removed.freed))?;
    if removed.kept_by_build_cache > 0 {
        let kept = bytes(removed.kept_by_build_cache);
        writeln!(text, "the build cache has {kept} more: isolab image prune --build-cache")?;
    }
    println!("{}", text.trim_end());
    Ok(())
}
