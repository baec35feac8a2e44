//! `isolab network create`

use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use ipnet::Ipv4Net;
use isolab_network::{NetworkName, Networks, NewNetwork};

/// Make a network, and print its name.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  isolab network create backend\n  isolab network create --subnet 10.9.0.0/24 --gateway 10.9.0.254 --internal db"
)]
pub struct Create {
    /// Its IPv4 addresses, as 10.9.0.0/24; by default a subnet of 10.210.0.0/16 that no route of the host
    /// leads to.
    #[arg(long)]
    subnet: Option<Ipv4Net>,
    /// The bridge's own address [default: the subnet's first].
    #[arg(long)]
    gateway: Option<Ipv4Addr>,
    /// Without a way out or in: no NAT, no published ports, no names but the network's own.
    #[arg(long)]
    internal: bool,
    /// Also with IPv6 addresses, of a random unique local subnet. They reach the world if the host forwards
    /// IPv6, which isolab does not turn on.
    #[arg(long)]
    ipv6: bool,
    /// What you want to know of it, KEY=VALUE; can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Its name.
    name: NetworkName,
}

pub fn run(networks: &Networks, args: &Create) -> Result<ExitCode> {
    let record = networks.create(NewNetwork {
        name: args.name.clone(),
        subnet: args.subnet,
        gateway: args.gateway,
        ipv6: args.ipv6,
        internal: args.internal,
        labels: args.label.iter().cloned().collect(),
    })?;
    println!("{}", record.name);
    Ok(ExitCode::SUCCESS)
}

/// As podman's: a key alone has an empty value.
fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key.is_empty() {
        true => Err("a label has a key".to_owned()),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}
