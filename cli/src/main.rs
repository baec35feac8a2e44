//! The `isolab` command: parse, call a library, print.

#[macro_use]
mod output;

mod bench;
mod check;
mod console;
mod format;
mod image;
mod run;
mod signals;
mod system;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One OCI image at four levels of isolation: process, container, paravirt and fullvirt.
#[derive(Parser)]
#[command(name = "isolab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Bench),
    Check(check::Args),
    Image(image::Image),
    Run(Box<run::Args>),
    System(system::System),
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    signals::hear_of_children();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = match cli.command {
        Command::Bench(bench) => bench::run(bench),
        Command::Check(args) => check::run(&args),
        Command::Image(image) => image::run(image),
        Command::Run(args) => run::run(*args),
        Command::System(system) => system::run(system),
        Command::Vm(vm) => vm::run(vm),
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("isolab: {}", output::explain(&error));
        ExitCode::from(format::EXIT_OWN_FAILURE)
    });
    match output::failure() {
        Some(error) => {
            eprintln!("isolab: cannot write to standard output: {error}");
            ExitCode::from(format::EXIT_OWN_FAILURE)
        }
        None => code,
    }
}

/// Tells what is wrong with the arguments, or the help that was asked for. The codes below 125 of
/// `isolab run` are the command's own.
fn refuse(error: &clap::Error) -> ExitCode {
    // Where nobody reads it, nobody can be told.
    let _ = error.print();
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_run => ExitCode::from(format::EXIT_OWN_FAILURE),
        code => ExitCode::from(u8::try_from(code).unwrap_or(format::EXIT_OWN_FAILURE)),
    }
}
