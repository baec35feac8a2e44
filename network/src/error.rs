//! What can go wrong with networks.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::name::{BadName, NetworkName};

/// What was attempted on what, and failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A file of ours.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file whose content is not what we wrote.
    #[error("{path} is damaged, or of another version of isolab", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// A call to the kernel.
    #[error("cannot {action} {what}")]
    Kernel {
        /// What was attempted.
        action: &'static str,
        /// On which link, table or file.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Who we are may not.
    #[error("cannot {action} {what}: that takes root (CAP_NET_ADMIN)")]
    NotPermitted {
        /// What was attempted.
        action: &'static str,
        /// On which link, table or file.
        what: String,
    },
    /// The kernel has no nf_tables.
    #[error(
        "this kernel has no nftables (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT), which networks need"
    )]
    NoNftables {
        /// Its answer.
        source: io::Error,
    },
    /// The kernel has no taps, or hides them.
    #[error("cannot open /dev/net/tun, which the network of a virtual machine needs")]
    NoTun {
        /// Why not.
        source: io::Error,
    },
    /// No such network.
    #[error("there is no network `{name}`")]
    Unknown {
        /// What was asked for.
        name: NetworkName,
    },
    /// The name is another's.
    #[error("there is a network `{name}` already")]
    Exists {
        /// The name.
        name: NetworkName,
    },
    /// The default network cannot be removed.
    #[error("`{name}` is the default network, which is not removed")]
    Default {
        /// Its name.
        name: NetworkName,
    },
    /// It has endpoints.
    #[error("network `{name}` is in use by {users}", users = users.join(", "))]
    InUse {
        /// The network.
        name: NetworkName,
        /// Whose endpoints.
        users: Vec<String>,
    },
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] BadName),
    /// What a network cannot have.
    #[error("subnet {subnet}: {why}")]
    Subnet {
        /// The subnet.
        subnet: IpNet,
        /// What it should be like.
        why: &'static str,
    },
    /// The subnet is somebody else's.
    #[error("subnet {subnet} overlaps with {other}")]
    Overlap {
        /// The subnet.
        subnet: IpNet,
        /// Whose part of it is.
        other: String,
    },
    /// Every subnet we could choose is used.
    #[error("no subnet of {pool} is free; choose another one")]
    NoSubnet {
        /// From where they are taken.
        pool: IpNet,
    },
    /// An address that an endpoint cannot have.
    #[error("address {address} on network `{network}`: {why}")]
    Address {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        network: NetworkName,
        /// Why not.
        why: String,
    },
    /// Every address is used.
    #[error("network `{network}` has no free address: all {count} of {subnet} are taken")]
    Exhausted {
        /// The network.
        network: NetworkName,
        /// Its subnet.
        subnet: IpNet,
        /// How many addresses instances can have.
        count: u32,
    },
    /// It has no way in.
    #[error("network `{network}` is internal: no port of the host leads there")]
    Internal {
        /// The network.
        network: NetworkName,
    },
    /// It cannot be led where it should.
    #[error("port {port} cannot lead to network `{network}`: {why}")]
    PortAddress {
        /// As it would be published.
        port: String,
        /// The network.
        network: NetworkName,
        /// Why not.
        why: &'static str,
    },
    /// Somebody listens there.
    #[error("port {port} of the host is taken")]
    PortTaken {
        /// As it would be published.
        port: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The host's address or port cannot be used.
    #[error("cannot publish port {port} on the host")]
    Port {
        /// As it would be published.
        port: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More ports than an endpoint can hold.
    #[error("{count} ports are too many: {limit} can be published")]
    TooManyPorts {
        /// How many.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// A link of that name is not ours.
    #[error("the host has a link `{link}` that is not of network `{network}`")]
    LinkNotOurs {
        /// The link.
        link: String,
        /// The network whose bridge has that name.
        network: NetworkName,
    },
    /// The program that connects the instances of an ordinary user is not here.
    #[error(
        "there is no `{program}` in PATH, which connects the instances of who is not root: install Debian's package passt"
    )]
    NoUserMode {
        /// pasta or passt.
        program: &'static str,
    },
    /// It gave up.
    #[error("{program} cannot connect the instance: {said}")]
    UserMode {
        /// Its path.
        program: String,
        /// Its last words.
        said: String,
    },
    /// A network of the host's is root's to use.
    #[error(
        "network `{name}` takes root (CAP_NET_ADMIN): it is a link and rules of the host's; who is not root has `pasta`"
    )]
    OnlyRoot {
        /// The network.
        name: NetworkName,
    },
    /// It did not end.
    #[error("the name service of network `{network}` (process {pid}) does not end")]
    Responder {
        /// The network.
        network: NetworkName,
        /// The process.
        pid: i32,
    },
}

impl NetworkError {
    /// For a call to the kernel: `action` on `what`.
    pub(crate) fn kernel(
        action: &'static str,
        what: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { action, what },
            _ => Self::Kernel { action, what, source },
        }
    }

    /// For a file of ours.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
