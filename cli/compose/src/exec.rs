//! `isolab compose exec`

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_command::program::become_program;

use crate::scope::Scope;

/// Run a further command in a service's instance, with a terminal where we have one.
///
/// Exits as `isolab exec` does: with the command's own code, or 125 to 127.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  isolab compose exec db psql\n  isolab compose exec -T --index 2 app cat /etc/hosts"
)]
pub struct Exec {
    /// Do not wait for the command; what it writes is lost.
    #[arg(long, short)]
    detach: bool,
    /// Give the command no terminal.
    #[arg(long, short = 'T')]
    no_tty: bool,
    /// User and group; by default the service's.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory; by default the service's.
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Set an environment variable.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Which of the service's instances; by default the first that runs.
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// The service.
    service: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Runs the command.
pub fn run(scope: &Scope, args: Exec) -> Result<ExitCode> {
    let instance = scope.instance(&args.service, args.index)?;
    let mut words: Vec<OsString> = vec!["exec".into()];
    if args.detach {
        words.push("--detach".into());
    } else {
        words.push("--interactive".into());
        if !args.no_tty && io::stdin().is_terminal() && io::stdout().is_terminal() {
            words.push("--tty".into());
        }
    }
    let mut option = |name: &str, value: &str| words.push(format!("{name}={value}").into());
    args.user.iter().for_each(|user| option("--user", user));
    args.workdir.iter().for_each(|folder| option("--workdir", folder));
    args.env.iter().for_each(|variable| option("--env", variable));
    words.push(instance.name().into());
    words.extend(args.command);
    become_program("isolab", &words)
}
