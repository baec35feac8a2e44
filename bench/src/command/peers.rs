//! The peers of `bench startup`: other VMMs, and other container runtimes.

use std::str::FromStr;

use isolab_bench::{machines, runtimes};

/// What a start of ours is measured beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Machine(machines::Peer),
    Runtime(runtimes::Peer),
}

impl Peer {
    /// What the operator calls it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Machine(peer) => peer.name(),
            Peer::Runtime(peer) => peer.name(),
        }
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let runtime = runtimes::Peer::ALL.into_iter().find(|peer| peer.name() == text);
        runtime
            .map_or_else(|| text.parse().map(Peer::Machine), |peer| Ok(Peer::Runtime(peer)))
            .map_err(|error: String| {
                format!("{error}, {}", runtimes::Peer::ALL.map(runtimes::Peer::name).join(", "))
            })
    }
}

/// VMMs and runtimes, each in the order of the command line.
pub fn sorted(peers: &[Peer]) -> (Vec<machines::Peer>, Vec<runtimes::Peer>) {
    let machine = |peer: &Peer| match peer {
        Peer::Machine(peer) => Some(*peer),
        Peer::Runtime(_) => None,
    };
    let runtime = |peer: &Peer| match peer {
        Peer::Runtime(peer) => Some(*peer),
        Peer::Machine(_) => None,
    };
    (peers.iter().filter_map(machine).collect(), peers.iter().filter_map(runtime).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_have_names() {
        assert_eq!("crun".parse(), Ok(Peer::Runtime(runtimes::Peer::Crun)));
        assert_eq!("qemu".parse(), Ok(Peer::Machine(machines::Peer::Qemu)));
        let error = "docker".parse::<Peer>().unwrap_err();
        assert!(error.contains("kvmtool, runc, crun"), "{error}");
    }
}
