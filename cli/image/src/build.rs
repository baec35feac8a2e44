//! `isolab image build`

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use isolab_build::{BuildNews, BuildRequest};
use isolab_command::fetch::Access;
use isolab_command::signals;
use isolab_images::Store;
use isolab_isolation::ContainerSteps;

use crate::secret;

/// See <https://reproducible-builds.org/specs/source-date-epoch/>.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Build an image from a Dockerfile and print its digest.
///
/// Each RUN is a container of isolab's own. Steps whose inputs did not change are taken from the
/// cache; times of files do not count there. Files keep their times, unless --timestamp or the
/// variable SOURCE_DATE_EPOCH says how young they may be: then the same inputs make the same image.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  isolab image build -t web --build-arg VERSION=2 tiers/web\n  \
                        isolab image build -t app --secret id=token,src=$HOME/.token\n\n\
                        Of a Dockerfile, RUN --mount=type=ssh, RUN --security=insecure and ADD of a \
                        git repository are refused."
)]
pub struct Build {
    /// The folder to copy from.
    #[arg(default_value = ".")]
    context: PathBuf,
    /// Name the image so; may be given again.
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<String>,
    /// The Dockerfile, or - for standard input; by default Containerfile or Dockerfile in the
    /// folder.
    #[arg(long, short, value_name = "PATH")]
    file: Option<PathBuf>,
    /// A value for an ARG; without one, our own environment's.
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// What RUN --mount=type=secret,id=ID finds: a file's content, or a variable's of our own
    /// environment. It never gets into the image, its history or the cache.
    #[arg(long, value_name = "id=ID[,src=PATH|,env=VARIABLE]")]
    secret: Vec<secret::Argument>,
    /// Build this stage, not the last.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step, also where the cache has its outcome.
    #[arg(long)]
    no_cache: bool,
    /// No file is younger, and the image is as old, in seconds since 1970; by default
    /// $SOURCE_DATE_EPOCH, or the ARG of that name.
    #[arg(long, visible_alias = "source-date-epoch", value_name = "SECONDS")]
    timestamp: Option<u64>,
    /// Only linux/amd64 is built; another is warned of.
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
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

/// Ends with 128 and the signal's number when a signal ended it; nothing is left behind then.
pub fn build(store: &Store, args: Build) -> Result<ExitCode> {
    let quiet = args.quiet;
    let request = request(args)?;
    let steps = ContainerSteps::default();
    let signal = Arc::new(AtomicI32::new(0));
    let signals = signals::block(&[]).context("cannot block signals")?;
    let (interrupted, received) = (steps.clone(), Arc::clone(&signal));
    let on_signal = move |number| {
        if received.swap(number, Ordering::SeqCst) != 0 {
            // What is left of the build then, `isolab image prune` finds.
            process::exit(128 + number);
        }
        eprintln!("isolab: the build was interrupted; once more ends it without cleaning up");
        interrupted.interrupt();
    };
    signals.on_arrival(on_signal).context("cannot wait for signals")?;
    let mut log = |news: BuildNews<'_>| match news {
        BuildNews::Warning(warning) => eprintln!("warning: {warning}"),
        BuildNews::Step(line) if !quiet => eprintln!("{line}"),
        BuildNews::Step(_) => {}
    };
    match (isolab_build::build(store, &request, &steps, &mut log), signal.load(Ordering::SeqCst)) {
        (Ok(image), _) => println!("{}", image.digest()),
        (Err(error), 0) => return Err(error.into()),
        (Err(_), number) => return Ok(ExitCode::from(128 + number as u8)),
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: Build) -> Result<BuildRequest> {
    let mut values = HashMap::new();
    for arg in args.build_arg {
        match arg.split_once('=') {
            Some((name, value)) => drop(values.insert(name.to_owned(), value.to_owned())),
            None => values.extend(env::var(&arg).ok().map(|value| (arg, value))),
        }
    }
    let given = values.get(EPOCH).cloned().or_else(|| env::var(EPOCH).ok());
    let epoch = match (args.timestamp, given.filter(|text| !text.is_empty())) {
        (Some(epoch), _) => Some(epoch),
        (None, Some(text)) => Some(text.parse().with_context(|| format!("{EPOCH}={text}"))?),
        (None, None) => None,
    };
    if let Some(platform) = args.platform.filter(|platform| !platform.starts_with("linux/amd64")) {
        eprintln!("warning: --platform={platform}: images are built for linux/amd64 here");
    }
    let is_stdin = args.file.as_ref().is_some_and(|file| file.as_os_str() == "-");
    Ok(BuildRequest {
        names: args.tag,
        context: args.context,
        dockerfile: if is_stdin { Some(PathBuf::from("/dev/stdin")) } else { args.file },
        args: values,
        secrets: args.secret.into_iter().map(|secret| (secret.id, secret.from)).collect(),
        target: args.target,
        no_cache: args.no_cache,
        epoch,
        host_network: args.network == Network::Host,
        insecure: args.access.insecure,
        cert_dir: args.access.cert_dir,
    })
}
