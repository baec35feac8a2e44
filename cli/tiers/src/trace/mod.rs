//! `isolab tiers trace PATH`: one request, followed through the system.
//!
//! What is told comes from those who do the work: the name service is asked, the connection is ours, nginx writes a line
//! of its log with the request's id, the application server tells its parts in `Server-Timing`, PostgreSQL logs the
//! plans that it ran (auto_explain). Counters of the host's kernel are read before and after.

mod clock;
pub mod compare;
mod cost;
mod diagram;
mod name;
mod parts;
mod plans;
mod story;
mod svg;
mod web_log;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Args;
use hyper::Method;
use isolab_command::format::Format;
use isolab_instances::time::Timestamp;

use self::cost::Counters;
use self::story::{Heard, Story};
use crate::http::{Ask, Connection, check_path};
use crate::site::{Member, Site, Tier};

/// How long any of it may take; guests may be emulated.
const PATIENCE: Duration = Duration::from_secs(60);

/// Follow one request through the three tiers, and draw where its time went.
///
/// GET, or POST of an order with --post. Times of application and database are on the host's clock, whatever clock
/// their level has: it is compared as NTP does, and the error is told. The trace turns on the database's log of plans
/// for a moment, of whatever runs then; on a shop that others use as well it may tell statements of theirs.
#[derive(Args)]
#[command(after_help = "Examples:\n  isolab tiers trace /api/products/7\n  \
    isolab tiers trace '/api/products?q=oak+lamp' --svg trace.svg\n  \
    isolab tiers trace /api/orders --post '{\"customer\":\"Ada\",\"items\":[{\"product\":7,\"quantity\":1}]}'")]
pub struct Command {
    /// What to ask for, with its query.
    #[arg(value_parser = check_path)]
    path: String,
    /// Send this as JSON.
    #[arg(long, value_name = "JSON")]
    post: Option<String>,
    /// Write the diagram to this file as well.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub fn run(project: &str, args: &Command) -> Result<ExitCode> {
    let site = Site::find(project)?;
    let story = crate::runtime()?.block_on(follow(&site, args))?;
    if let Some(path) = &args.svg {
        let written = fs::write(path, svg::draw(&story));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&story)?),
        Format::Table => print!("{}", diagram::draw(&story)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn follow(site: &Site, args: &Command) -> Result<Story> {
    let (web, db) = (site.one(Tier::Web)?, site.primary().await?);
    let plans = plans::Switch::on(db)?;
    let asked_at = Timestamp::now();
    let before = counters(site);
    let clock = story::Clock::start(SystemTime::now());
    let resolved = name::resolve(web).context("cannot ask the name service")?;
    let named = clock.now();
    let mut connection = Connection::open(web.address()?, PATIENCE).await?;
    let connected = clock.now();
    let answer = connection.ask(&ask(args, clock)).await?;
    let costs = cost::spent(&before, &counters(site));
    let id = answer.header("x-request-id").to_owned();
    let web_line = web_log::find(web, asked_at, &id)?;
    let app = web_line.upstream_address().and_then(|address| served_by(site, address));
    // The clock of who served it; nobody's, where web did it alone.
    let offset = match app {
        Some(app) => Some(clock::compare(app.address()?).await?),
        None => None,
    };
    let statements = plans.off(asked_at)?;
    let heard = Heard { resolved, named, connected, answer, web_line, offset, statements, costs };
    Ok(story::tell(site, args.method(), &args.path, clock, app, heard))
}

impl Command {
    fn method(&self) -> Method {
        if self.post.is_some() { Method::POST } else { Method::GET }
    }
}

fn ask(args: &Command, clock: story::Clock) -> Ask {
    let mut ask = Ask::get(&args.path);
    if let Some(body) = &args.post {
        ask.method = args.method();
        ask.body.clone_from(body);
        // Each trace is an order of its own.
        ask.headers.push(("idempotency-key", format!("trace-{}", clock.wall_nanoseconds())));
    }
    ask
}

fn counters(site: &Site) -> Vec<(String, Counters)> {
    let name = |member: &Member| member.instance.name().to_owned();
    site.running().map(|member| (name(member), Counters::of(site, member))).collect()
}

fn served_by(site: &Site, address: std::net::SocketAddr) -> Option<&Member> {
    site.running().find(|member| member.tier == Tier::App && member.has_address(address.ip()))
}
