//! `isolab tiers up`, `isolab tiers down`: the compose file of the three tiers, by `isolab compose`.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use isolab_guest::package;
use isolab_isolation::Level;

use crate::images;

/// Build what is not built, and start the three tiers; returns when all of them are ready.
#[derive(Args)]
#[command(after_help = "Examples:\n  isolab tiers up --isolation container\n  \
    isolab tiers up --web container --app process --db paravirt --apps 2\n  \
    isolab tiers up --apps 2 --db-standby")]
pub struct Up {
    /// The level of all tiers: process, container, paravirt or fullvirt.
    #[arg(long, value_name = "LEVEL", default_value = "container")]
    isolation: Level,
    /// The web tier's level, where it is another.
    #[arg(long, value_name = "LEVEL")]
    web: Option<Level>,
    /// The application tier's.
    #[arg(long, value_name = "LEVEL")]
    app: Option<Level>,
    /// The database's.
    #[arg(long, value_name = "LEVEL")]
    db: Option<Level>,
    /// How many application servers there are; web shares requests out among them, and passes over one that dies.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    apps: u32,
    /// A second database that follows the first, and takes over when that is lost (pg_auto_failover); an order is
    /// confirmed when both have it.
    #[arg(long)]
    db_standby: bool,
    /// The port of the host at which the shop is.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Take the images as they are, without a look at what they are built of.
    #[arg(long)]
    no_build: bool,
}

/// Stop the three tiers, and remove them and their networks.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab tiers down --volumes")]
pub struct Down {
    /// The databases' volumes, and with them the orders, as well.
    #[arg(long, short)]
    volumes: bool,
}

/// Starts them.
pub fn up(project: &str, args: &Up) -> Result<ExitCode> {
    let folder = images::unpack()?;
    if !args.no_build {
        images::build(folder.path(), false)?;
    }
    let mut compose = compose(project, folder.path(), args.db_standby)?;
    compose.args(["up", "--detach", "--wait", "--no-build"]);
    compose.env("SHOP_PORT", args.port.to_string());
    compose.arg("--scale").arg(format!("app={}", args.apps));
    for (service, level) in args.levels() {
        compose.arg("--isolation").arg(format!("{service}={}", level.name()));
    }
    run(compose)
}

/// Ends them.
pub fn down(project: &str, args: &Down) -> Result<ExitCode> {
    let folder = images::unpack()?;
    // Whether there is a standby or not.
    let mut compose = compose(project, folder.path(), true)?;
    compose.arg("down").args(args.volumes.then_some("--volumes"));
    run(compose)
}

impl Up {
    /// The level of each service.
    fn levels(&self) -> Vec<(&'static str, Level)> {
        let or = |level: Option<Level>| level.unwrap_or(self.isolation);
        let db = or(self.db);
        let mut levels = vec![("web", or(self.web)), ("app", or(self.app)), ("db", db)];
        if self.db_standby {
            levels.extend([("db-standby", db), ("db-monitor", db)]);
        }
        levels
    }
}

fn compose(project: &str, folder: &Path, with_standby: bool) -> Result<Command> {
    let mut compose = Command::new(package::executable("isolab-compose")?);
    compose.arg("--project-name").arg(project).arg("--file").arg(folder.join("compose.yaml"));
    if with_standby {
        compose.arg("--file").arg(folder.join("standby.yaml"));
    }
    Ok(compose)
}

fn run(mut compose: Command) -> Result<ExitCode> {
    let status = compose.status().context("cannot run isolab-compose")?;
    // It was ended by a signal where it has no code; then it has said nothing, and neither do we.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    #[test]
    fn a_tier_s_own_level_comes_before_that_of_all() {
        let line = ["up", "--isolation", "paravirt", "--app", "process"];
        let levels = Line::parse_from(line).up.levels();
        let expected = [("web", Level::Paravirt), ("app", Level::Process), ("db", Level::Paravirt)];
        assert_eq!(levels, expected);
        let line = ["up", "--db", "process", "--db-standby"];
        let levels = Line::parse_from(line).up.levels();
        assert_eq!(levels[2..], ["db", "db-standby", "db-monitor"].map(|it| (it, Level::Process)));
    }
}
