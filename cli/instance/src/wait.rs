//! `isolab wait`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::failure;
use isolab_instances::Catalogue;

/// Wait until instances have ended, and print their exit codes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  code=$(isolab wait job)")]
pub struct Args {
    /// Names, or ids or beginnings of them.
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let mut code = ExitCode::SUCCESS;
    for name in &args.instances {
        match catalogue.find(name).and_then(|instance| catalogue.wait(&instance)) {
            Ok(ended) => println!("{ended}"),
            Err(error) => {
                failure::tell(&error);
                code = ExitCode::from(error.exit_code());
            }
        }
    }
    Ok(code)
}
