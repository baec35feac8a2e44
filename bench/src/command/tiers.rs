//! `isolab bench tiers`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_bench::{Host, subjects};
use isolab_images::Store;
use isolab_isolation::Level;

use super::instances::{self, Shop};
use super::running::Running;
use super::{levels, remarks_of};

/// A shop in three tiers at every level: until it is ready, what it answers, and where a request's time goes.
///
/// `isolab tiers up` starts nginx, an application server and PostgreSQL at one level; then each of six endpoints is
/// asked by four connections without a pause (requests a second, times, and what an answer costs the host), requests are
/// due at fixed rates whatever becomes of them, one request is followed through all tiers, and more application
/// servers share the work. The images come from `isolab tiers build`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab tiers build && isolab bench tiers --isolation process,container --runs 5\n  \
    isolab bench tiers --apps 1 --rates 50,100,200,400 --duration 10 --out results")]
pub struct TiersBench {
    /// Levels, separated by commas; by default all of them.
    #[arg(long, value_name = "LEVEL,...", value_delimiter = ',')]
    isolation: Vec<Level>,
    #[command(flatten)]
    running: Running,
    /// Numbers of application servers, separated by commas; the first is measured in all ways.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 4],
        value_parser = clap::value_parser!(u32).range(1..=64))]
    apps: Vec<u32>,
    /// Requests a second that are due, separated by commas.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [25, 50, 100, 200],
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rates: Vec<u32>,
    /// Seconds that each load of one kind, or at one rate, lasts [default: 5, or 2 with --quick].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration: Option<u64>,
    /// How many requests of the mix the application servers share [default: 300, or 100 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: Option<u32>,
    /// The host's port that the shop is at.
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
}

/// As `isolab tiers up` has it, but for a shop that runs there already.
pub const PORT: u16 = 8090;
/// Of the mix, that the application servers share.
pub const REQUESTS: u32 = 300;
/// Likewise, with --quick.
pub const QUICK_REQUESTS: u32 = 100;
/// The image of the tier that all requests come to.
pub const IMAGE: &str = "shop-web";

/// Measures, and prints and writes the report.
///
/// # Errors
/// What the operator should read.
pub fn run(args: TiersBench) -> Result<ExitCode> {
    let image = Store::open_default()?.resolve(IMAGE);
    let image = image.context("the shop's images are not built: isolab tiers build")?;
    let image = (IMAGE.to_owned(), image.digest().to_owned());
    for named in [&args.apps, &args.rates] {
        if let Some(twice) = super::duplicate(named) {
            bail!("{twice} is named twice");
        }
    }
    let (subjects, kernel) = subjects::levels(levels::chosen(&args.isolation)?, None, false)?;
    let mut session = args.running.begin("tiers", 1)?;
    let seconds = args.duration.unwrap_or(if args.running.quick { 2 } else { 5 });
    let usual = if args.running.quick { QUICK_REQUESTS } else { REQUESTS };
    let shop = Shop {
        apps: args.apps,
        rates: args.rates,
        time: Duration::from_secs(seconds),
        requests: args.requests.unwrap_or(usual),
        port: args.port,
    };
    let findings = instances::tiers(subjects, shop, &mut session.runner)?;
    let report = session.report(Host::detect(Some(image), kernel), findings);
    let text =
        format!("{}\n\n{}{}", report.host, instances::plain(&report, "tiers"), remarks_of(&report));
    session.finish(&report, &text, &args.running.output)
}
