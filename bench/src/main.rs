//! The `isolab-bench` executable, which `isolab bench` becomes.

#[macro_use]
extern crate isolab_command;

mod command;

use std::process::ExitCode;

use isolab_link as _;

fn main() -> ExitCode {
    isolab_command::run::<command::Bench>()
}
