//! `isolab exec`

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use isolab_command::environment::with_our_values;
use isolab_command::{attached, signals};
use isolab_instances::{Catalogue, Streams};
use isolab_isolation::FurtherProcess;

/// Run a further command in an instance that runs.
///
/// Exits with the command's own code, with 127 when there is no such command, with 126 when it cannot
/// be executed, and with 125 when isolab itself failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  isolab exec web ls -l /\n  isolab exec -it web sh")]
pub struct Args {
    /// Do not wait for the command; what it writes is lost.
    #[arg(long, short, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Pass our standard input on.
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(long, short)]
    tty: bool,
    /// User and group, by name or number; by default the instance's.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory; by default the instance's.
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Set an environment variable; without a value, pass on our own.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Its name, or its id or the beginning of it.
    instance: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        bail!("a terminal was asked for, and standard input is none");
    }
    let process = FurtherProcess {
        args: args.command,
        env: with_our_values(args.env),
        workdir: args.workdir,
        user: args.user,
    };
    let catalogue = Catalogue::open_default()?;
    let instance = catalogue.find(&args.instance)?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    if args.detach {
        let null = OpenOptions::new().write(true).open("/dev/null");
        let null = null.context("cannot open /dev/null")?;
        let streams = Streams { stdin: None, stdout: null.as_fd(), stderr: null.as_fd() };
        catalogue.exec(&instance, process, None, &streams)?;
        return Ok(ExitCode::SUCCESS);
    }
    let streams = Streams {
        stdin: args.interactive.then(|| stdin.as_fd()),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
    };
    let size = args.tty.then(attached::size);
    // Ctrl-C in a terminal of the command's own is a key; without one it ends us, as with podman.
    let signals = args.tty.then(|| signals::block(&signals::passed_on()));
    let signals = signals.transpose().context("cannot block signals")?;
    let mut session = catalogue.exec(&instance, process, size, &streams)?;
    let code = match (session.terminal.take(), signals) {
        (Some(theirs), Some(signals)) => {
            attached::sit_at(&session, theirs, args.interactive, signals)?
        }
        _ => session.wait()?,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
