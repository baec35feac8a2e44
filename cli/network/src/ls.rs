//! `isolab network ls`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_command::format::Format;
use isolab_network::Networks;
use serde_json::json;

/// List the networks.
#[derive(Args)]
#[command(
    after_help = "Example:\n  isolab network ls --format json | jq -r '.[] | select(.endpoints == 0).name'"
)]
pub struct Ls {
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the names alone.
    #[arg(long, short, conflicts_with = "format")]
    quiet: bool,
}

pub fn run(networks: &Networks, args: &Ls) -> Result<ExitCode> {
    let mut rows = Vec::new();
    for network in networks.list()? {
        let endpoints = networks.endpoints(&network.name)?;
        rows.push((network, endpoints));
    }
    if args.quiet {
        rows.iter().for_each(|(network, _)| println!("{}", network.name));
        return Ok(ExitCode::SUCCESS);
    }
    if args.format == Format::Json {
        let mut facts = Vec::new();
        for (network, endpoints) in &rows {
            let mut fact = serde_json::to_value(network)?;
            fact["endpoints"] = json!(endpoints);
            facts.push(fact);
        }
        println!("{}", serde_json::to_string_pretty(&facts)?);
        return Ok(ExitCode::SUCCESS);
    }
    let width =
        rows.iter().map(|(network, _)| network.name.as_str().len()).max().unwrap_or(0).max(4);
    println!("{:width$}  {:<15}  {:>9}  SUBNETS", "NAME", "INTERFACE", "ENDPOINTS");
    for (network, endpoints) in &rows {
        let subnets: Vec<_> = network.subnets().map(|subnet| subnet.to_string()).collect();
        let internal = if network.internal { ", internal" } else { "" };
        let (name, bridge, subnets) = (network.name.as_str(), &network.bridge, subnets.join(", "));
        println!("{name:width$}  {bridge:<15}  {endpoints:>9}  {subnets}{internal}");
    }
    Ok(ExitCode::SUCCESS)
}
