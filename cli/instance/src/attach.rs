//! `isolab attach`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::attached::{Attached, DetachKeys};
use isolab_instances::Catalogue;

/// Show what an instance writes from now on, pass on what is typed, and exit with its code.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab attach web    # ctrl-p ctrl-q leaves it running")]
pub struct Args {
    /// The keys that end the watching and leave the instance running, "" for none.
    #[arg(long, value_name = "KEYS", default_value_t)]
    detach_keys: DetachKeys,
    /// Pass nothing on.
    #[arg(long)]
    no_stdin: bool,
    /// Its name, or its id or the beginning of it.
    instance: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let instance = catalogue.find(&args.instance)?;
    let attached = Attached::new(&instance, !args.no_stdin, &args.detach_keys)?;
    attached.run(|streams| catalogue.attach(&instance, streams))
}
