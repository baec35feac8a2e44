//! `isolab network inspect`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_network::{NetworkName, Networks};

/// Print what networks are, who is on them, and what they have and change on the host, as JSON.
///
/// `host` names all that a network changes: links, an nftables table, sysctls of its own bridge, and
/// net/ipv4/ip_forward, which is turned on where it is off and stays on. `forward_dropped_by` has chains of
/// others (Docker's, a firewall's) that drop what is forwarded: with one there, the network reaches the world
/// only if its owner lets it; those of `input_dropped_by` drop what is sent to the host, names to look up too.
#[derive(Args)]
#[command(
    after_help = "Example:\n  isolab network inspect isolab0 | jq -r '.[].endpoints[] | .owner + \" \" + .address'"
)]
pub struct Inspect {
    /// Their names.
    #[arg(required = true)]
    names: Vec<NetworkName>,
}

pub fn run(networks: &Networks, args: &Inspect) -> Result<ExitCode> {
    let mut all = Vec::new();
    for name in &args.names {
        all.push(networks.usage(name)?);
    }
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(ExitCode::SUCCESS)
}
