//! `isolab image pull`, `push` and `login`

use std::collections::HashMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use isolab_command::fetch::{Access, Policy};
use isolab_images::{Image, ImageError, Store};
use isolab_registry::{Progress, RegistryError, RegistryOptions, Silent};

/// Fetch images from registries and print their digests.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab image pull busybox\n  \
    isolab image pull --insecure localhost:5000/web:v1")]
pub struct Pull {
    /// The images; `busybox` is docker.io/library/busybox:latest.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// When to fetch them.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "always")]
    policy: Policy,
    /// Unpack the layers at once, which otherwise the first run does.
    #[arg(long)]
    unpack: bool,
    #[command(flatten)]
    how: How,
}

/// Send an image to a registry and print the digest that it has there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab image push quay.io/team/web:v1\n  \
    isolab image push --insecure web localhost:5000/web:v1")]
pub struct Push {
    /// The image, by name or digest.
    image: String,
    /// Where to, by default as it is named.
    destination: Option<String>,
    #[command(flatten)]
    how: How,
}

/// Keep a user and password for a registry in Docker's configuration (~/.docker/config.json, or
/// config.json in $DOCKER_CONFIG).
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    isolab image login --user me --password-stdin quay.io <password.txt")]
pub struct Login {
    /// The registry's host, and port if it has one.
    #[arg(default_value = "docker.io")]
    registry: String,
    /// The user; asked for without it.
    #[arg(long, short)]
    user: Option<String>,
    /// Take the password from standard input, not from the terminal.
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct How {
    #[command(flatten)]
    access: Access,
    /// Show no progress bars, on a terminal either.
    #[arg(long, short)]
    quiet: bool,
}

impl How {
    /// Does `work`, with progress bars on standard error where that is a terminal.
    fn run<T>(
        &self,
        work: impl FnOnce(RegistryOptions<'_>) -> Result<T, RegistryError>,
    ) -> Result<T> {
        if self.quiet || !io::stderr().is_terminal() {
            return Ok(work(options(&self.access, &Silent))?);
        }
        let bars = Bars::default();
        let result = work(options(&self.access, &bars));
        bars.all.clear().context("cannot clear the progress bars")?;
        Ok(result?)
    }
}

fn options<'a>(access: &'a Access, progress: &'a dyn Progress) -> RegistryOptions<'a> {
    RegistryOptions { insecure: access.insecure, cert_dir: access.cert_dir.as_deref(), progress }
}

pub fn pull(store: &Store, args: &Pull) -> Result<()> {
    for name in &args.images {
        let image = obtain(store, name, args)?;
        if args.unpack {
            image.layers_unpacked()?;
        }
        println!("{}", image.digest());
    }
    Ok(())
}

fn obtain(store: &Store, name: &str, args: &Pull) -> Result<Image> {
    let pull = || args.how.run(|options| isolab_registry::pull(store, name, options));
    match args.policy {
        Policy::Always => pull(),
        Policy::Never => Ok(store.resolve(name)?),
        Policy::Missing => match store.resolve(name) {
            Err(ImageError::NotFound(_)) => {
                pull().with_context(|| format!("there is no image `{name}` here"))
            }
            other => Ok(other?),
        },
    }
}

pub fn push(store: &Store, args: &Push) -> Result<()> {
    let destination = args.destination.as_deref();
    let digest =
        args.how.run(|options| isolab_registry::push(store, &args.image, destination, options))?;
    println!("{digest}");
    Ok(())
}

pub fn login(args: &Login) -> Result<()> {
    let stdin = io::stdin();
    if !args.password_stdin && !stdin.is_terminal() {
        bail!("there is no terminal to ask at; use --password-stdin");
    }
    let user = match &args.user {
        Some(user) => user.clone(),
        None if args.password_stdin => bail!("--password-stdin needs --user"),
        None => {
            eprint!("User: ");
            io::stderr().flush().context("cannot ask for the user")?;
            line(&mut stdin.lock())?
        }
    };
    let password = match args.password_stdin {
        true => line(&mut stdin.lock())?,
        false => rpassword::prompt_password("Password: ").context("cannot read the password")?,
    };
    let options = options(&args.access, &Silent);
    let kept = isolab_registry::login(&args.registry, &user, &password, options)?;
    eprintln!("logged in to {}; credentials kept in {}", args.registry, kept.display());
    Ok(())
}

fn line(input: &mut impl BufRead) -> Result<String> {
    let mut text = String::new();
    input.read_line(&mut text).context("cannot read standard input")?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// One bar a blob.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    by_digest: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn with(&self, digest: &str, act: impl FnOnce(&ProgressBar)) {
        // Bars are of no further use where a thread that drew one has panicked.
        if let Ok(bars) = self.by_digest.lock()
            && let Some(bar) = bars.get(digest)
        {
            act(bar);
        }
    }
}

impl Progress for Bars {
    fn begin(&self, digest: &str, size: u64, done: u64) {
        let template = "{prefix} [{bar:32}] {bytes:>10} / {total_bytes} {bytes_per_sec}";
        // The template is right; were it not, the crate's own would do.
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let Ok(mut bars) = self.by_digest.lock() else { return };
        let new = || self.all.add(ProgressBar::new(size).with_style(style));
        let bar = bars.entry(digest.to_owned()).or_insert_with(new);
        let digits = digest.trim_start_matches("sha256:");
        bar.set_prefix(digits.get(..12).unwrap_or(digits).to_owned());
        bar.set_position(done);
    }

    fn advance(&self, digest: &str, bytes: u64) {
        self.with(digest, |bar| bar.inc(bytes));
    }

    fn end(&self, digest: &str) {
        self.with(digest, ProgressBar::finish);
    }
}
