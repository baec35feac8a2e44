//! Networks of instances, without a daemon: what is written down of them, addresses, links, firewall and
//! names. It knows nothing of instances or levels: an [`Endpoint`] is an interface in a network namespace,
//! or a tap.
//!
//! A network is a [`NetworkRecord`] on the disk, and costs nothing until somebody uses it. The first
//! [`Networks::attach`] makes its bridge, its part of the firewall and its name service, the last endpoint's
//! end removes them. Whoever has an endpoint holds a lock on the file of its lease; what a killed owner left
//! is known by a lease without a lock, and swept by whoever comes next ([`Networks::sweep`]).
//!
//! All of that takes root. Who is not has a [`UserMode`] network for each instance, which is on no other.

mod attach;
mod endpoint;
mod error;
pub mod firewall;
mod lease;
mod link;
mod mac;
mod name;
mod networks;
mod option;
mod ports;
mod record;
mod responder;
mod subnet;
mod sysctl;
mod usage;
mod user_mode;

pub use endpoint::{Endpoint, EndpointKind, EndpointRequest};
pub use error::NetworkError;
pub use lease::{Lease, leases_in};
pub use link::namespace::{bring_up_loopback, in_namespace, new_namespace};
pub use mac::{BadMacAddress, MacAddress};
pub use name::{BadName, HostName, NetworkName, USER_MODE};
pub use networks::{DEFAULT_NETWORK, Folders, Networks, NewNetwork};
pub use option::{BadNetworkOption, NetworkOption};
pub use ports::{BadPort, Protocol, PublishedPort};
pub use record::NetworkRecord;
pub use usage::{HostFacts, NetworkUsage};
pub use user_mode::{INTERFACE, UserMode, find_user_mode, try_user_mode};
