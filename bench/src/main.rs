//! The `isolab-bench` executable, which `isolab bench` becomes.

#[macro_use]
extern crate isolab_command;

mod command;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    isolab_command::start(command::Bench::command);
    match command::Bench::try_parse() {
        Ok(bench) => isolab_command::end(bench.logging.start().and_then(|()| command::run(bench))),
        Err(error) => isolab_command::refuse(&error),
    }
}
