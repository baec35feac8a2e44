//! The commands that other executables of the package do, which this process becomes.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches, Subcommand, value_parser};
use isolab_command::elsewhere::{self, ELSEWHERE};
use isolab_command::logging::Logging;
use isolab_command::program::become_program;

/// One of them, as it was typed.
pub struct Elsewhere {
    command: elsewhere::Elsewhere,
    arguments: Vec<OsString>,
}

const ARGUMENTS: &str = "arguments";

impl Elsewhere {
    /// Becomes the executable. It returns where that failed.
    pub fn run(self, logging: &Logging) -> Result<ExitCode> {
        let name = (!self.command.is_whole()).then(|| self.command.name.into());
        let name = Vec::from_iter(name);
        become_program(
            self.command.executable,
            &[logging.to_arguments(), name, self.arguments].concat(),
        )
    }
}

/// The executable reads its arguments itself, `--help` too.
impl Subcommand for Elsewhere {
    fn augment_subcommands(command: Command) -> Command {
        let one = |it: &elsewhere::Elsewhere| {
            let arguments = Arg::new(ARGUMENTS)
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .num_args(0..)
                .trailing_var_arg(true)
                .value_parser(value_parser!(OsString));
            Command::new(it.name).about(it.about).disable_help_flag(true).arg(arguments)
        };
        command.subcommands(ELSEWHERE.iter().map(one))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        elsewhere::Elsewhere::find(name).is_some()
    }
}

impl FromArgMatches for Elsewhere {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let (name, matches) =
            matches.subcommand().ok_or_else(|| Error::new(ErrorKind::MissingSubcommand))?;
        let command = elsewhere::Elsewhere::find(name);
        let command = command.ok_or_else(|| Error::new(ErrorKind::InvalidSubcommand))?;
        let arguments = matches.get_many::<OsString>(ARGUMENTS).unwrap_or_default();
        Ok(Self { command, arguments: arguments.cloned().collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
