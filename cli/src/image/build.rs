//! `isolab image build`

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use isolab_images::{BuildRequest, Store};
use isolab_isolation::ContainerSteps;

use super::registry::Access;

/// Build an image from a Dockerfile and print its digest.
///
/// Each RUN is a container of isolab's own. Steps whose inputs did not change are taken from the
/// cache. The same inputs make the same image: no file in it is younger than SOURCE_DATE_EPOCH,
/// or than 1970 without that variable.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab image build -t web --build-arg VERSION=2 tiers/web")]
pub struct Build {
    /// The folder to copy from.
    context: PathBuf,
    /// Name the image so.
    #[arg(long, short, value_name = "NAME")]
    tag: Option<String>,
    /// The Dockerfile, or - for standard input; by default Dockerfile in the folder.
    #[arg(long, short, value_name = "PATH")]
    file: Option<PathBuf>,
    /// A value for an ARG; without one, our own environment's.
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Build this stage, not the last.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step, also where the cache has its outcome.
    #[arg(long)]
    no_cache: bool,
    /// The network of RUN: none but loopback, or the host's.
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    #[command(flatten)]
    access: Access,
    /// Do not tell the steps.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Network {
    #[default]
    None,
    Host,
}

pub fn build(store: &Store, args: Build) -> Result<()> {
    let mut values = HashMap::new();
    for arg in args.build_arg {
        match arg.split_once('=') {
            Some((name, value)) => drop(values.insert(name.to_owned(), value.to_owned())),
            None => values.extend(env::var(&arg).ok().map(|value| (arg, value))),
        }
    }
    let epoch = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text}"))?,
        Err(_) => 0,
    };
    let is_stdin = args.file.as_ref().is_some_and(|file| file.as_os_str() == "-");
    let dockerfile = if is_stdin { Some(PathBuf::from("/dev/stdin")) } else { args.file };
    let request = BuildRequest {
        name: args.tag,
        context: args.context,
        dockerfile,
        args: values,
        target: args.target,
        no_cache: args.no_cache,
        epoch,
        host_network: args.network == Network::Host,
        insecure: args.access.insecure,
        cert_dir: args.access.cert_dir,
    };
    let quiet = args.quiet;
    let mut log = |line: &str| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    println!("{}", store.build(&request, &ContainerSteps, &mut log)?.digest());
    Ok(())
}
