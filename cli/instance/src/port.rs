//! `isolab port`

use std::process::ExitCode;

use anyhow::{Result, bail};
use isolab_instances::Catalogue;

use crate::networks;

/// List the ports that an instance publishes, or where one of its ports is to be had.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  isolab port web\n  isolab port web 80/tcp")]
pub struct Args {
    /// Its name, or its id or the beginning of it.
    instance: String,
    /// A port of the instance.
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let instance = Catalogue::open_default()?.find(&args.instance)?;
    let wanted = args.port.as_ref().map(|port| match port.contains('/') {
        true => port.clone(),
        false => format!("{port}/tcp"),
    });
    let mut found = false;
    for port in networks::ports(&instance) {
        let address = networks::host_address(port);
        for offset in 0..port.count {
            let (host, guest) = (port.host + offset, port.guest + offset);
            let guest = format!("{guest}/{}", port.protocol);
            match &wanted {
                None => println!("{guest} -> {address}:{host}"),
                Some(wanted) if *wanted == guest => {
                    println!("{address}:{host}");
                    found = true;
                }
                Some(_) => {}
            }
        }
    }
    match wanted.filter(|_| !found) {
        Some(port) => bail!("instance `{}` publishes no port {port}", instance.name()),
        None => Ok(ExitCode::SUCCESS),
    }
}
