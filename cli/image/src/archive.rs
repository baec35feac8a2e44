//! `isolab image load` and `save`

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use isolab_images::{ArchiveFormat, Store};

/// Take in the images of an OCI image layout or a `docker save` archive and print their names.
///
/// Everything is verified and unpacked; what is damaged does not come in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab image load busybox.tar\n  \
    podman save busybox | isolab image load")]
pub struct Load {
    /// A folder that is an OCI image layout, a tar archive of one, or an archive that
    /// `docker save` made; archives plain, gzip, zstd or xz. By default, or as `-`, standard
    /// input.
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// As PATH, for Docker's and podman's users.
    #[arg(long, short, value_name = "PATH", conflicts_with = "path")]
    input: Option<PathBuf>,
    /// Name the image so; needed where there is no name in it.
    #[arg(long, short, value_name = "NAME")]
    tag: Option<String>,
    /// Unpack the layers. Always so; here for scripts of earlier versions.
    #[arg(long, hide = true)]
    unpack: bool,
}

/// Write images to a file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab image save -o busybox.tar busybox\n  \
    isolab image save --format docker-archive web app | docker load")]
pub struct Save {
    /// The images, by name or digest.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The file or folder, which must not be there; by default standard output.
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// What to write the images as.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A tar archive of an OCI image layout.
    #[default]
    OciArchive,
    /// An OCI image layout.
    OciDir,
    /// As `docker save` writes it.
    DockerArchive,
}

pub fn load(store: &Store, args: &Load) -> Result<()> {
    let path = args.path.as_ref().or(args.input.as_ref()).filter(|path| *path != Path::new("-"));
    let name = args.tag.as_deref();
    let images = match path {
        Some(path) => store.load(path, name)?,
        None if io::stdin().is_terminal() => {
            bail!("there is no archive on a terminal; name a PATH, or redirect standard input")
        }
        None => store.load_stream(io::stdin(), name)?,
    };
    for image in images {
        println!("{}", image.reference().unwrap_or(image.digest()));
    }
    Ok(())
}

pub fn save(store: &Store, args: &Save) -> Result<()> {
    let format = match args.format {
        Form::OciArchive => ArchiveFormat::OciArchive,
        Form::OciDir => ArchiveFormat::OciDir,
        Form::DockerArchive => ArchiveFormat::DockerArchive,
    };
    match &args.output {
        Some(path) => store.save(&args.images, path, format)?,
        None if args.format == Form::OciDir => bail!("a folder needs --output"),
        None if io::stdout().is_terminal() => {
            bail!("an archive on a terminal is of no use; give --output FILE, or a pipe")
        }
        None => store.save_stream(&args.images, io::stdout().lock(), format)?,
    }
    Ok(())
}
