//! `isolab image ls`, `inspect` and `history`

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use isolab_command::failure;
use isolab_command::format::{Format, bytes};
use isolab_images::{ImageDetails, Listing, Store};

/// List the images.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image ls --format json")]
pub struct Ls {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Tell everything about images.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image inspect --format json busybox")]
pub struct Inspect {
    /// The images, by name or digest.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// How to print it; JSON is an array, also of one.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Tell how an image was made, the latest step first.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image history busybox")]
pub struct History {
    /// The image, by name or digest.
    image: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// As podman does it, a damaged image is named on standard error and does not make the list fail.
pub fn list(listing: &Listing, format: Format) -> Result<()> {
    for error in &listing.damaged {
        failure::tell(error);
    }
    let records = &listing.images;
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(records)?);
        return Ok(());
    }
    let mut text = format!("{:<48} {:<12} {:>10}  CREATED\n", "NAME", "DIGEST", "SIZE");
    for record in records {
        let name = record.reference.as_deref().unwrap_or("-");
        let (digest, size) = (short(&record.digest), bytes(record.size));
        let created = record.created.as_deref().unwrap_or("-");
        writeln!(text, "{name:<48} {digest:<12} {size:>10}  {created}")?;
    }
    println!("{}", text.trim_end());
    Ok(())
}

pub fn inspect(store: &Store, args: &Inspect) -> Result<()> {
    let images: Vec<ImageDetails> =
        args.images.iter().map(|name| store.inspect(name)).collect::<Result<_, _>>()?;
    if args.format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&images)?);
        return Ok(());
    }
    let mut text = String::new();
    for image in &images {
        let mut line = |title: &str, value: &str| text += &format!("{title:<13} {value}\n");
        line("Name", image.reference.as_deref().unwrap_or("-"));
        line("All names", &image.names.join(", "));
        line("Digest", &image.digest);
        line("Config", &image.config_digest);
        line("Created", image.created.as_deref().unwrap_or("-"));
        line("Platform", &format!("{}/{}", image.os, image.architecture));
        line("Size", &bytes(image.size));
        for (title, key) in [
            ("Entrypoint", "Entrypoint"),
            ("Command", "Cmd"),
            ("User", "User"),
            ("Work folder", "WorkingDir"),
            ("Environment", "Env"),
            ("Ports", "ExposedPorts"),
            ("Volumes", "Volumes"),
            ("Labels", "Labels"),
        ] {
            match image.config.get(key) {
                None | Some(serde_json::Value::Null) => {}
                Some(serde_json::Value::String(text)) => line(title, text),
                Some(other) => line(title, &other.to_string()),
            }
        }
        for layer in &image.layers {
            let size = bytes(layer.size);
            line("Layer", &format!("{} {size:>10}  {}", layer.digest, layer.media_type));
        }
    }
    println!("{}", text.trim_end());
    Ok(())
}

pub fn history(store: &Store, args: &History) -> Result<()> {
    let steps = store.history(&args.image)?;
    if args.format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&steps)?);
        return Ok(());
    }
    let mut text = format!("{:<25} {:>10}  CREATED BY\n", "CREATED", "SIZE");
    for step in steps {
        let created = step.created.as_deref().unwrap_or("-");
        let size = step.size.map_or_else(|| "-".to_owned(), bytes);
        let by = step.created_by.as_deref().unwrap_or("-").replace('\n', " ");
        writeln!(text, "{created:<25} {size:>10}  {by}")?;
    }
    println!("{}", text.trim_end());
    Ok(())
}

/// The first twelve digits, as everybody shows them.
fn short(digest: &str) -> &str {
    let digits = digest.trim_start_matches("sha256:");
    digits.get(..12).unwrap_or(digits)
}
