//! The options about networks.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the text is --help's, where brackets are what may be left out"
)]

use isolab_instances::{HostName, Networking, PublishedPort};

/// How an instance is connected.
#[derive(Debug, clap::Args)]
pub struct NetworkOptions {
    /// Connect the instance: none (its loopback interface), host (the host's own interfaces), or
    /// NAME[,ip=ADDRESS][,mac=ADDRESS][,alias=NAME], a network of `isolab network create`, or isolab0, which is
    /// there by itself; can be repeated. At paravirt and fullvirt also tap[=NAME],ip=ADDRESS/PREFIX[,gateway=ADDRESS]
    /// and what `isolab vm run --net` takes besides: a tap whose host's end is yours to set up. Without root there is
    /// pasta instead of named networks, by Debian's package passt: a way out, and in by -p, for one instance, not at fullvirt. Without
    /// it, and without -p and --network-alias, which are isolab0's (without root pasta's) then, process has the host's network and the
    /// others none.
    #[arg(long, value_name = "NETWORK")]
    network: Vec<String>,
    /// Lead a port of the host to one of the instance, on its first network: [IP:][HOST]:GUEST[/tcp|/udp], each
    /// a port or a range such as 8000-8010; without HOST one that is free; can be repeated.
    #[arg(long, short, value_name = "PORTS")]
    publish: Vec<PublishedPort>,
    /// A name by which others on its networks find the instance, beside its own; can be repeated.
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<HostName>,
}

impl NetworkOptions {
    /// What is asked for.
    pub fn networking(&self) -> Networking {
        Networking {
            networks: self.network.clone(),
            ports: self.publish.clone(),
            aliases: self.network_alias.clone(),
        }
    }
}
