//! The `isolab` command: parse, call a library, print.

mod console;
mod signals;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One OCI image, four levels of isolation.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Vm(vm) => vm::run(vm),
    };
    result.unwrap_or_else(|error| {
        eprintln!("isolab: {error:#}");
        ExitCode::FAILURE
    })
}
