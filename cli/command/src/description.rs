//! What an executable tells of its command line, for shell completions and man pages.
//!
//! Completions are of all executables as one command: `isolab` asks the others for their trees of
//! commands, instead of carrying them. Both questions are hidden first words of each executable.

use std::path::Path;
use std::process::Command as Program;
use std::{env, fs};

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command};
use serde::{Deserialize, Serialize};

use crate::program;

/// Asks for the tree of commands, as JSON.
const TREE: &str = "--describe-command-line";
/// Asks for man pages, in the folder that follows.
const MAN_PAGES: &str = "--write-man-pages";

/// A command, as far as a shell completes it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    name: String,
    about: String,
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
    takes_value: bool,
    may_repeat: bool,
    values: Vec<String>,
}

/// Answers what is asked of the executable with this command line; false if nothing is.
///
/// # Errors
/// The man pages cannot be written.
pub fn answer(command: fn() -> Command) -> Result<bool> {
    let mut words = env::args_os().skip(1);
    match words.next() {
        Some(word) if word == TREE => {
            println!("{}", serde_json::to_string(&Described::of(&command()))?);
        }
        Some(word) if word == MAN_PAGES => {
            let folder = words.next().context("name the folder of the man pages")?;
            write_man_pages(command(), Path::new(&folder))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The command line of the executable `name` of this package, as far as a shell completes it.
///
/// # Errors
/// There is no such executable, or it is of another version.
pub fn of_program(name: &str) -> Result<Described> {
    let path = program::find(name)?;
    let failed = || format!("cannot ask {} for its commands", path.display());
    let output = Program::new(&path).arg(TREE).output().with_context(failed)?;
    serde_json::from_slice(&output.stdout).with_context(failed)
}

/// A page for the command and each of its own, those of the package's other executables excepted.
fn write_man_pages(mut command: Command, folder: &Path) -> Result<()> {
    command.build();
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        let is_told = |it: &&Command| !it.is_hide_set() && it.get_name() != "help";
        left.extend(command.get_subcommands().filter(is_told).cloned());
        // `isolab vm run` is told in isolab-vm-run(1).
        let name = command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-");
        let path = folder.join(format!("{name}.1"));
        let mut page = Vec::new();
        let failed = || format!("cannot write {}", path.display());
        clap_mangen::Man::new(command.name(name).disable_help_subcommand(true))
            .render(&mut page)
            .and_then(|()| fs::write(&path, page))
            .with_context(failed)?;
    }
    Ok(())
}

impl Described {
    fn of(command: &Command) -> Self {
        let text = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string);
        let option = |arg: &Arg| Opt {
            id: arg.get_id().to_string(),
            long: arg.get_long().map(str::to_owned),
            short: arg.get_short(),
            help: text(arg.get_help()).unwrap_or_default(),
            takes_value: arg.get_action().takes_values(),
            may_repeat: matches!(arg.get_action(), ArgAction::Append),
            values: arg
                .get_possible_values()
                .iter()
                .map(|value| value.get_name().to_owned())
                .collect(),
        };
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
        Self {
            name: command.get_name().to_owned(),
            about: text(command.get_about()).unwrap_or_default(),
            options: options.map(option).collect(),
            commands: commands.map(Self::of).collect(),
        }
    }

    /// The command called `name`, of which a completion can be generated.
    pub fn into_command(self, name: &str) -> Command {
        let commands = self.commands.into_iter().map(|command| {
            let name = command.name.clone();
            command.into_command(&name)
        });
        Command::new(name.to_owned())
            .about(self.about)
            .args(self.options.into_iter().map(Opt::into_arg))
            .subcommands(commands)
    }
}

impl Opt {
    fn into_arg(self) -> Arg {
        let is_option = self.long.is_some() || self.short.is_some();
        let mut arg = Arg::new(self.id).help(self.help);
        if let Some(long) = self.long {
            arg = arg.long(long);
        }
        if let Some(short) = self.short {
            arg = arg.short(short);
        }
        if !self.takes_value {
            return arg.action(ArgAction::SetTrue);
        }
        if !self.values.is_empty() {
            arg = arg.value_parser(self.values);
        }
        match (self.may_repeat, is_option) {
            (false, _) => arg.action(ArgAction::Set),
            (true, true) => arg.action(ArgAction::Append),
            (true, false) => arg.action(ArgAction::Append).num_args(0..),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let policy = Arg::new("policy").long("policy").short('p').help("When.");
        let images = Arg::new("images").action(ArgAction::Append).num_args(1..);
        let pull = Command::new("pull").about("Fetch images.");
        let pull = pull.arg(policy.value_parser(["always", "never"])).arg(images);
        Command::new("isolab-image").subcommand(pull).subcommand(Command::new("x").hide(true))
    }

    #[test]
    fn what_is_told_makes_the_same_command_elsewhere() {
        let told = serde_json::to_string(&Described::of(&command())).unwrap();
        let described: Described = serde_json::from_str(&told).unwrap();
        let again = described.into_command("image");
        assert_eq!(again.get_name(), "image");
        let (pull, own) = (again.find_subcommand("pull").unwrap(), command());
        let own = own.find_subcommand("pull").unwrap();
        assert_eq!(Described::of(pull), Described::of(own));
        assert!(again.find_subcommand("x").is_none());
        again.debug_assert();
    }

    #[test]
    fn each_command_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        write_man_pages(command().bin_name("isolab image"), folder.path()).unwrap();
        let mut pages: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        pages.sort();
        assert_eq!(pages, ["isolab-image-pull.1", "isolab-image.1"]);
        let page = fs::read_to_string(folder.path().join("isolab-image-pull.1")).unwrap();
        assert!(page.contains("Fetch images") && page.contains("policy"), "{page}");
    }
}
