//! `isolab start`

use std::process::ExitCode;

use anyhow::{Result, bail};
use isolab_command::attached::{Attached, DetachKeys};
use isolab_command::failure;
use isolab_command::instances::with_each;
use isolab_instances::Catalogue;

/// Start instances that were made or have ended.
///
/// At levels process and container an instance finds what it wrote before. At paravirt and fullvirt it
/// begins with its image again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab start web")]
pub struct Args {
    /// Show the output of the one instance, and exit with its code.
    #[arg(long, short)]
    attach: bool,
    /// Pass our standard input on as well, to an instance that was made with -i.
    #[arg(long, short)]
    interactive: bool,
    /// The keys that end the watching and leave the instance running, "" for none.
    #[arg(long, value_name = "KEYS", default_value_t)]
    detach_keys: DetachKeys,
    /// Names, or ids or beginnings of them.
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    if !args.attach && !args.interactive {
        return with_each(&catalogue, &args.instances, |instance| {
            catalogue.start(instance, None, failure::describe).map(drop)
        });
    }
    let [name] = &args.instances[..] else {
        bail!("one instance only can be attached to");
    };
    let instance = catalogue.find(name)?;
    let attached = Attached::new(&instance, args.interactive, &args.detach_keys)?;
    attached.run(|streams| catalogue.start(&instance, Some(streams), failure::describe))
}
