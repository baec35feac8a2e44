//! The `isolab-tiers` executable, which `isolab tiers` becomes: a web server, an application server and a database, at
//! any level of isolation, and what a request costs there.

#[macro_use]
extern crate isolab_command;

mod compose;
mod hint;
mod http;
mod images;
mod load;
mod site;
mod status;
mod trace;

use std::error::Error;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_link as _;

/// Run a shop in three tiers, put load on it, and follow a request through it.
///
/// The tiers are nginx, an application server and PostgreSQL, each at a level of isolation that you choose. It is a
/// compose file (`isolab compose`) and three images, which are built on the first `up`. Look at it in a browser, put
/// load on it, and follow one request through it.
#[derive(Parser)]
#[command(
    name = "isolab-tiers",
    bin_name = "isolab tiers",
    version,
    after_help = "Examples:\n  isolab tiers up --isolation container && xdg-open http://127.0.0.1:8080/\n  \
    isolab tiers up --web container --app process --db paravirt --apps 2\n  \
    isolab tiers trace '/api/products?q=oak+lamp' --svg trace.svg\n  \
    isolab tiers load --rate 500 --duration 30s\n  isolab tiers down"
)]
struct Tiers {
    #[command(flatten)]
    logging: Logging,
    /// What this shop is called; two of different names can run side by side.
    #[arg(long, global = true, value_name = "NAME", default_value = "shop")]
    project: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(images::Build),
    Up(compose::Up),
    Down(compose::Down),
    Status(status::Status),
    Trace(trace::Command),
    Compare(trace::compare::Command),
    Load(load::Command),
}

fn main() -> ExitCode {
    isolab_command::run::<Tiers>()
}

impl Executable for Tiers {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        match &self.command {
            Command::Build(args) => images::run(args),
            Command::Up(args) => compose::up(&self.project, args),
            Command::Down(args) => compose::down(&self.project, args),
            Command::Status(args) => status::run(&self.project, args),
            Command::Trace(args) => trace::run(&self.project, args),
            Command::Compare(args) => trace::compare::run(args),
            Command::Load(args) => load::run(&self.project, args),
        }
    }

    fn hint(error: &(dyn Error + 'static)) -> Option<String> {
        hint::of(error)
    }
}

/// What waits for networks: one thread is enough where nothing computes.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().context("cannot start the runtime")
}
