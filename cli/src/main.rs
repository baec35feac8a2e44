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
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(bench) => bench::run(bench),
        Command::Check(args) => check::run(&args),
        Command::Image(image) => image::run(image),
        Command::Run(args) => run::run(*args),
        Command::Vm(vm) => vm::run(vm),
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("isolab: {error:#}");
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
