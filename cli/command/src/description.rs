//! What an executable tells of its command line, for shell completions and man pages (`isolab-manual`).
//!
//! These are of all executables as one command. So each of them is asked for its tree of commands, by a
//! hidden first word, instead of one that carries the others' trees.

use std::env;
use std::process::Command as Program;

use anyhow::{Context, Result};
use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command};
use isolab_guest::package;
use serde::{Deserialize, Serialize};

/// Asks for the tree of commands, as JSON.
const TREE: &str = "--describe-command-line";

/// A command, as far as completions and man pages tell of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    name: String,
    version: Option<String>,
    about: String,
    /// Where it says more than `about`.
    long_about: Option<String>,
    after_help: Option<String>,
    needs_command: bool,
    options: Vec<Opt>,
    commands: Vec<Described>,
}

/// An option, or without a name an argument.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Opt {
    id: String,
    long: Option<String>,
    short: Option<char>,
    help: String,
    long_help: Option<String>,
    takes: Takes,
    value_names: Vec<String>,
    values: Vec<Value>,
    defaults: Vec<String>,
    is_required: bool,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Takes {
    /// No value, once.
    Nothing,
    /// No value; how often it is given counts.
    NothingOften,
    /// One value, once.
    Value,
    /// Several values.
    Values,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Value {
    name: String,
    help: Option<String>,
}

/// Answers where the tree of this command is asked for; false if it is not.
///
/// # Errors
/// The tree has no form in JSON.
pub fn answer(command: fn() -> Command) -> Result<bool> {
    let is_asked = env::args_os().nth(1).is_some_and(|word| word == TREE);
    if is_asked {
        println!("{}", serde_json::to_string(&Described::of(&command()))?);
    }
    Ok(is_asked)
}

/// The command line of the executable `name` of this package.
///
/// # Errors
/// There is no such executable, or it is of another version.
pub fn of_program(name: &str) -> Result<Described> {
    let path = package::executable(name)?;
    let failed = || format!("cannot ask {} for its commands", path.display());
    let output = Program::new(&path).arg(TREE).output().with_context(failed)?;
    serde_json::from_slice(&output.stdout).with_context(failed)
}

impl Described {
    fn of(command: &Command) -> Self {
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
        Self {
            name: command.get_name().to_owned(),
            version: command.get_version().map(str::to_owned),
            about: text(command.get_about()).unwrap_or_default(),
            long_about: text(command.get_long_about()),
            after_help: text(command.get_after_help()),
            needs_command: command.is_subcommand_required_set(),
            options: options.map(Opt::of).collect(),
            commands: commands.map(Self::of).collect(),
        }
    }

    /// The command called `name` among those below.
    pub fn into_subcommand(self, name: &str) -> Option<Self> {
        self.commands.into_iter().find(|command| command.name == name)
    }

    /// The command called `name`, of which a completion and man pages can be made.
    pub fn into_command(self, name: &str) -> Command {
        let has_own_help = self.commands.iter().any(|command| command.name == "help");
        let commands = self.commands.into_iter().map(|command| {
            let name = command.name.clone();
            command.into_command(&name)
        });
        let mut command = Command::new(name.to_owned())
            .about(self.about)
            .subcommand_required(self.needs_command)
            .disable_help_subcommand(has_own_help)
            .args(self.options.into_iter().map(Opt::into_arg))
            .subcommands(commands);
        if let Some(version) = self.version {
            command = command.version(version);
        }
        if let Some(text) = self.long_about {
            command = command.long_about(text);
        }
        if let Some(text) = self.after_help {
            command = command.after_help(text);
        }
        command
    }
}

impl Opt {
    fn of(arg: &Arg) -> Self {
        let action = arg.get_action();
        let takes = match (action.takes_values(), action) {
            (true, ArgAction::Append) => Takes::Values,
            (true, _) => Takes::Value,
            (false, ArgAction::Count) => Takes::NothingOften,
            (false, _) => Takes::Nothing,
        };
        let names = arg.get_value_names().unwrap_or_default();
        let value = |value: &PossibleValue| Value {
            name: value.get_name().to_owned(),
            help: text(value.get_help()),
        };
        let values = arg.get_possible_values();
        Self {
            id: arg.get_id().to_string(),
            long: arg.get_long().map(str::to_owned),
            short: arg.get_short(),
            help: text(arg.get_help()).unwrap_or_default(),
            long_help: text(arg.get_long_help()),
            takes,
            value_names: names.iter().map(ToString::to_string).collect(),
            values: values.iter().filter(|value| !value.is_hide_set()).map(value).collect(),
            defaults: arg
                .get_default_values()
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect(),
            is_required: arg.is_required_set(),
        }
    }

    fn into_arg(self) -> Arg {
        let is_option = self.long.is_some() || self.short.is_some();
        let mut arg = Arg::new(self.id).help(self.help).required(self.is_required);
        if let Some(text) = self.long_help {
            arg = arg.long_help(text);
        }
        if let Some(long) = self.long {
            arg = arg.long(long);
        }
        if let Some(short) = self.short {
            arg = arg.short(short);
        }
        arg = match (self.takes, is_option) {
            (Takes::Nothing, _) => return arg.action(ArgAction::SetTrue),
            (Takes::NothingOften, _) => return arg.action(ArgAction::Count),
            (Takes::Value, _) => arg.action(ArgAction::Set),
            (Takes::Values, true) => arg.action(ArgAction::Append),
            (Takes::Values, false) => arg.action(ArgAction::Append).num_args(0..),
        };
        if !self.value_names.is_empty() {
            arg = arg.value_names(self.value_names);
        }
        if !self.values.is_empty() {
            let value = |value: Value| match value.help {
                Some(help) => PossibleValue::new(value.name).help(help),
                None => PossibleValue::new(value.name),
            };
            arg = arg.value_parser(self.values.into_iter().map(value).collect::<Vec<_>>());
        }
        arg.default_values(self.defaults)
    }
}

fn text(text: Option<&clap::builder::StyledStr>) -> Option<String> {
    text.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let when = [PossibleValue::new("always"), PossibleValue::new("never").help("At no time.")];
        let policy = Arg::new("policy").long("policy").short('p').help("When.").value_name("WHEN");
        let policy = policy.value_parser(when).default_value("never").long_help("When, at length.");
        let images = Arg::new("images").action(ArgAction::Append).num_args(1..).required(true);
        let loud = Arg::new("loud").long("loud").action(ArgAction::Count);
        let pull = Command::new("pull").about("Fetch images.").long_about("Fetch them.");
        let pull = pull.after_help("Example: …").args([policy, images, loud]);
        let isolab = Command::new("isolab-image").version("1").subcommand_required(true);
        isolab.subcommand(pull).subcommand(Command::new("x").hide(true))
    }

    #[test]
    fn what_is_told_makes_the_same_command_elsewhere() {
        let told = serde_json::to_string(&Described::of(&command())).unwrap();
        let described: Described = serde_json::from_str(&told).unwrap();
        let again = described.into_command("image");
        assert_eq!(again.get_name(), "image");
        assert!(again.find_subcommand("x").is_none());
        let told_again = Described::of(&again);
        let told: Described = serde_json::from_str(&told).unwrap();
        assert_eq!(told_again, Described { name: "image".to_owned(), ..told });
        again.debug_assert();
    }
}
