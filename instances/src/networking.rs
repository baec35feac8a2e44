//! How an instance is to be connected, as it was asked for, and what became of that.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use isolab_isolation::{
    Interface, InterfaceAddress, IsolationError, Level, Limits, Link, Network, OpenStream, OpenTap,
    TapNetwork, package,
};
use isolab_network::{
    DEFAULT_NETWORK, Endpoint, EndpointKind, EndpointRequest, Folders, HostName, INTERFACE, Lease,
    NetworkError, NetworkName, NetworkOption, Networks, PublishedPort, USER_MODE, UserMode,
    find_user_mode, new_namespace,
};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::error::InstanceError;

/// More queues than that of a tap have nothing to do: each is a processor's of the guest.
const MAX_QUEUES: u32 = 8;
/// What an Ethernet carries, in bytes; a PC's controller knows no more.
const ETHERNET_MTU: u16 = 1500;

/// What was asked for. Without anything, an instance has what its level has by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Networking {
    /// The networks, as [`NetworkOption`] reads them; or one tap, as [`TapNetwork`] does.
    pub networks: Vec<String>,
    /// What reaches it from outside; the first network's.
    pub ports: Vec<PublishedPort>,
    /// Names by which others find it, beside its own; on every network.
    pub aliases: Vec<HostName>,
}

/// The same, understood.
enum Asked {
    Default,
    None,
    Host,
    Tap(Box<TapNetwork>),
    UserMode,
    Networks(Vec<NetworkOption>),
}

/// The place that an instance has on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The network.
    pub network: NetworkName,
    /// What its interface is called inside.
    pub interface: String,
    /// Its addresses, names and ports.
    pub lease: Lease,
    /// How many bits of its IPv4 address are the network's.
    pub prefix: u8,
    /// Likewise of its IPv6 address, if it has one.
    pub prefix6: Option<u8>,
    /// Where what is not for the network goes; at most one of each family.
    pub gateways: Vec<IpAddr>,
}

/// An instance's places on networks, as long as it runs. They are given up when this is dropped; only
/// [`Connected::disconnect`] says what went wrong with that.
#[derive(Debug, Default)]
pub struct Connected {
    endpoints: Vec<Endpoint>,
    /// In their place for who is not root; with the machine's socket, where it is one's.
    user_mode: Option<(UserMode, Option<OwnedFd>)>,
    /// What there is to tell of them.
    pub attachments: Vec<Attachment>,
}

impl Networking {
    fn understand(&self) -> Result<Asked, InstanceError> {
        let refuse = |why: &str| {
            let (field, why) = ("network", why.to_owned());
            Err(IsolationError::Setting { field, why }.into())
        };
        let mut asked = Vec::new();
        for text in &self.networks {
            if is_tap(text) {
                let others = self.networks.len() > 1 || self.needs_network();
                let tap = text.parse::<TapNetwork>().map_err(Box::new)?;
                return match others {
                    true => refuse("a tap of the operator's has no other networks, ports or names"),
                    false => Ok(Asked::Tap(Box::new(tap))),
                };
            }
            asked.push(text.parse::<NetworkOption>()?);
        }
        let lone = match &asked[..] {
            [] if self.needs_network() && !geteuid().is_root() => Asked::UserMode,
            [] if self.needs_network() => {
                let network = DEFAULT_NETWORK.parse::<NetworkName>();
                let network = network.map_err(isolab_network::NetworkError::from)?;
                let (address, mac, aliases) = (None, None, Vec::new());
                asked.push(NetworkOption::Named { network, address, mac, aliases });
                return Ok(Asked::Networks(asked));
            }
            [] => return Ok(Asked::Default),
            [NetworkOption::None] => Asked::None,
            [NetworkOption::Host] => Asked::Host,
            [NetworkOption::UserMode] if geteuid().is_root() => {
                return refuse("pasta is for users who are not root, who has networks");
            }
            [NetworkOption::UserMode] => Asked::UserMode,
            all => {
                let mut names = all.iter().map(|option| match option {
                    NetworkOption::Named { network, .. } => Some(network),
                    _ => None,
                });
                let names: Option<Vec<_>> = names.by_ref().collect();
                let Some(mut names) = names else {
                    return refuse("none, host and pasta cannot be with other networks");
                };
                names.sort_unstable();
                if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                    return refuse(&format!("{} is named twice", twice[0]));
                }
                return Ok(Asked::Networks(asked));
            }
        };
        match (&lone, self.ports.is_empty(), self.aliases.is_empty()) {
            (_, true, true) | (Asked::UserMode, _, true) => Ok(lone),
            (Asked::UserMode, _, false) => {
                refuse("names are for those who share a network, which takes root")
            }
            (Asked::Host, false, _) => {
                refuse("ports are not published from the host's own interfaces: they are there")
            }
            (_, false, _) => refuse("ports cannot be published without a network"),
            (_, true, false) => refuse("names are for those who are on a network"),
        }
    }

    /// Whether something was asked for that only a network of ours has.
    fn needs_network(&self) -> bool {
        !self.ports.is_empty() || !self.aliases.is_empty()
    }

    /// Looks whether an instance of this level can have it, before there is one.
    ///
    /// # Errors
    /// It contradicts itself, a network does not exist, or the level has no such thing.
    pub fn check(&self, level: Level) -> Result<(), InstanceError> {
        match self.understand()? {
            Asked::Default | Asked::None => Ok(()),
            Asked::UserMode if level == Level::Fullvirt => {
                let what =
                    "be connected without root: its controller's driver leaves checksums to a tap";
                Err(IsolationError::Unsupported { level, what }.into())
            }
            Asked::UserMode => Ok(find_user_mode()?),
            Asked::Host => Ok(Network::of(Link::Host).check(level)?),
            Asked::Tap(tap) => Ok(Network::of_tap(*tap).check(level)?),
            Asked::Networks(options) => {
                let names = options.into_iter().filter_map(|option| match option {
                    NetworkOption::Named { network, .. } => Some(network),
                    _ => None,
                });
                let mut names = names.peekable();
                if let Some(name) = names.next_if(|_| !geteuid().is_root()) {
                    return Err(NetworkError::OnlyRoot { name }.into());
                }
                let networks = open()?;
                for name in names.filter(|name| name.as_str() != DEFAULT_NETWORK) {
                    networks.get(&name)?;
                }
                Ok(())
            }
        }
    }

    /// What podman calls the mode: `host`, `none`, `bridge`, or that of a tap.
    pub fn mode(&self, level: Level) -> &'static str {
        match self.understand() {
            Ok(Asked::Default) => match Network::default_of(level).link {
                Link::Host => "host",
                _ => "none",
            },
            Ok(Asked::Host) => "host",
            Ok(Asked::Tap(_)) => "tap",
            Ok(Asked::UserMode) => USER_MODE,
            Ok(Asked::Networks(_)) => "bridge",
            Ok(Asked::None) | Err(_) => "none",
        }
    }

    /// Connects the instance of this name and id, and says how.
    ///
    /// # Errors
    /// As [`Networking::check`], or a network has no place for it. It is on none of them then.
    pub fn connect(
        &self,
        level: Level,
        (name, id): (&str, &str),
        limits: Limits,
    ) -> Result<(Network, Connected), InstanceError> {
        let options = match self.understand()? {
            Asked::Networks(options) => options,
            Asked::Default => return Ok((Network::default_of(level), Connected::default())),
            Asked::None => return Ok((Network::of(Link::None), Connected::default())),
            Asked::Host => return Ok((Network::of(Link::Host), Connected::default())),
            Asked::Tap(tap) => return Ok((Network::of_tap(*tap), Connected::default())),
            Asked::UserMode => {
                let names = self.names(name, id, Vec::new());
                return connect_user_mode(level, UserMode::new(name, names, self.ports.clone())?);
            }
        };
        let networks = open()?;
        let namespace = match level.is_virtual_machine() {
            true => None,
            false => Some(new_namespace()?),
        };
        let mut connected = Connected::default();
        for (index, option) in options.into_iter().enumerate() {
            let NetworkOption::Named { network, address, mac, aliases } = option else { continue };
            let interface = format!("eth{index}");
            let kind = match &namespace {
                Some(namespace) => EndpointKind::Namespace {
                    namespace: namespace.try_clone().map_err(InstanceError::host(
                        "duplicate a network namespace's descriptor",
                    ))?,
                    interface: interface.clone(),
                },
                None => EndpointKind::Tap { queues: queues(level, limits) },
            };
            let endpoint = networks.attach(
                &network,
                EndpointRequest {
                    owner: name.to_owned(),
                    names: self.names(name, id, aliases),
                    address,
                    mac,
                    ports: if index == 0 { self.ports.clone() } else { Vec::new() },
                    kind,
                },
            )?;
            connected.attachments.push(Attachment::of(&endpoint, interface));
            connected.endpoints.push(endpoint);
        }
        Ok((connected.network(level, namespace), connected))
    }

    /// Its own name, as far as it can be one on a network, the beginning of its id, as podman has it, and what
    /// it is called besides.
    fn names(&self, name: &str, id: &str, on_network: Vec<HostName>) -> Vec<HostName> {
        let own = [name, id.get(..12).unwrap_or(id)].into_iter().filter_map(|it| it.parse().ok());
        let mut names: Vec<HostName> = own.collect();
        for alias in self.aliases.iter().cloned().chain(on_network) {
            if !names.contains(&alias) {
                names.push(alias);
            }
        }
        names
    }
}

/// A machine has its socket now; what has a network namespace is entered when that is there ([`Connected::enter`]).
fn connect_user_mode(
    level: Level,
    mut user_mode: UserMode,
) -> Result<(Network, Connected), InstanceError> {
    let attachment = Attachment {
        network: NetworkName::user_mode(),
        interface: INTERFACE.to_owned(),
        lease: user_mode.lease().clone(),
        prefix: user_mode.prefix(),
        prefix6: None,
        gateways: vec![user_mode.gateway()],
    };
    let mut network = Network::of(Link::None);
    network.addresses = attachment.addresses().map(|(address, _)| address).collect();
    network.name_servers = vec![user_mode.name_server()];
    let socket = match level.is_virtual_machine() {
        false => None,
        true => Some(user_mode.socket(ETHERNET_MTU)?),
    };
    if let Some(socket) = &socket {
        network.link = Link::Taps(vec![TapNetwork::from(OpenStream {
            socket: socket.as_fd(),
            mac: attachment.lease.mac.0,
            mtu: ETHERNET_MTU,
            interface: attachment.set_up(attachment.gateways.clone()),
        })]);
    }
    let (attachments, user_mode) = (vec![attachment], Some((user_mode, socket)));
    Ok((network, Connected { attachments, user_mode, ..Connected::default() }))
}

/// A tap is for the VM levels, and no network's name.
fn is_tap(text: &str) -> bool {
    let first = text.split([',', '=']).next();
    matches!(first, Some("tap" | "fds"))
}

/// Removes what instances have left on networks whose owners were killed. It costs nothing where no network is used.
///
/// # Errors
/// Something cannot be removed; the next one tries again.
pub fn sweep_networks() -> Result<(), InstanceError> {
    let folders = Folders::of(&isolab_images::data_dir());
    let is_used = fs::read_dir(&folders.runtime).is_ok_and(|mut used| used.next().is_some());
    if is_used { Ok(open()?.sweep().map(drop)?) } else { Ok(()) }
}

/// The networks of this host.
///
/// # Errors
/// Their folder cannot be made, or the package lacks the name service.
fn open() -> Result<Networks, InstanceError> {
    let folders = Folders::of(&isolab_images::data_dir());
    Ok(Networks::open(folders, package::executable("isolab-dns")?)?)
}

/// A queue for each processor of a guest whose controller has several.
fn queues(level: Level, limits: Limits) -> u16 {
    let cpus = limits.cpus.map_or(1, |cpus| cpus.ceil() as u32);
    match level {
        Level::Paravirt => cpus.clamp(1, MAX_QUEUES) as u16,
        _ => 1,
    }
}

/// Whether the host's kernel can move a guest's frames by itself. Tried once, and kept open: at a close of this device
/// the kernel waits for RCU, twice, for some 8 ms.
fn has_vhost() -> bool {
    static DEVICE: OnceLock<Option<File>> = OnceLock::new();
    let open = || OpenOptions::new().read(true).write(true).open("/dev/vhost-net").ok();
    DEVICE.get_or_init(open).is_some()
}

impl Attachment {
    fn of(endpoint: &Endpoint, interface: String) -> Self {
        let gateways = [endpoint.gateway().map(IpAddr::V4), endpoint.gateway6().map(IpAddr::V6)];
        Self {
            network: endpoint.network().name.clone(),
            interface,
            lease: endpoint.lease().clone(),
            prefix: endpoint.address().prefix_len(),
            prefix6: endpoint.address6().map(|address| address.prefix_len()),
            gateways: gateways.into_iter().flatten().collect(),
        }
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let v6 = self.lease.address6.zip(self.prefix6);
        let v6 = v6.map(|(address, prefix)| (IpAddr::V6(address), prefix));
        std::iter::once((IpAddr::V4(self.lease.address), self.prefix)).chain(v6)
    }

    /// The host's end of its link; none where a program of the user's takes its place.
    pub fn host_link(&self) -> Option<String> {
        (self.network != NetworkName::user_mode()).then(|| self.lease.link())
    }

    /// How a guest sets its interface up.
    fn set_up(&self, gateways: Vec<IpAddr>) -> Interface {
        let address = |(address, prefix)| InterfaceAddress { address, prefix };
        Interface { addresses: self.addresses().map(address).collect(), gateways }
    }
}

impl Connected {
    /// Connects the network namespace that was made with the instance, where it is still to be: before the instance is
    /// started.
    ///
    /// # Errors
    /// The program that connects instances without root is missing, or what it says.
    pub fn enter(&mut self, namespace: Option<BorrowedFd<'_>>) -> Result<(), InstanceError> {
        match (&mut self.user_mode, namespace) {
            (Some((user_mode, None)), Some(namespace)) => Ok(user_mode.enter(namespace)?),
            _ => Ok(()),
        }
    }

    fn network(&self, level: Level, namespace: Option<OwnedFd>) -> Network {
        let servers = self.endpoints.iter().map(|it| IpAddr::V4(it.name_server()));
        let addresses = self.attachments.iter().flat_map(Attachment::addresses);
        Network {
            addresses: addresses.map(|(address, _)| address).collect(),
            name_servers: servers.collect(),
            link: match namespace {
                Some(namespace) => Link::Namespace(namespace),
                None => Link::Taps(self.taps(level)),
            },
        }
    }

    fn taps(&self, level: Level) -> Vec<TapNetwork> {
        let vhost = level == Level::Paravirt && has_vhost();
        // Of several ways out the first is taken; of each family one.
        let mut ways: Vec<IpAddr> = Vec::new();
        let mut taps = Vec::new();
        for (endpoint, attachment) in self.endpoints.iter().zip(&self.attachments) {
            let is_new = |way: &&IpAddr| ways.iter().all(|it| it.is_ipv4() != way.is_ipv4());
            let gateways: Vec<IpAddr> =
                attachment.gateways.iter().filter(is_new).copied().collect();
            ways.extend(&gateways);
            taps.push(TapNetwork::from(OpenTap {
                link: attachment.lease.link(),
                queues: endpoint.taps(),
                mac: attachment.lease.mac.0,
                interface: attachment.set_up(gateways),
                vhost,
            }));
        }
        taps
    }

    /// Gives all places up.
    ///
    /// # Errors
    /// The first one that could not be given up; the others are all the same.
    pub fn disconnect(self) -> Result<(), InstanceError> {
        let mut result = Ok(());
        for endpoint in self.endpoints {
            let detached = endpoint.detach();
            result = result.and(detached);
        }
        Ok(result?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(networks: &[&str], ports: &[&str], aliases: &[&str]) -> Networking {
        Networking {
            networks: networks.iter().map(|it| (*it).to_owned()).collect(),
            ports: ports.iter().map(|it| it.parse().unwrap()).collect(),
            aliases: aliases.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let tap = "tap=vm0,ip=10.0.0.2/24";
        let alone = if geteuid().is_root() { "bridge" } else { "pasta" };
        for (networking, process, container) in [
            (asking(&[], &[], &[]), "host", "none"),
            (asking(&["none"], &[], &[]), "none", "none"),
            (asking(&["host"], &[], &[]), "host", "host"),
            (asking(&["web", "db"], &["80:80"], &["x"]), "bridge", "bridge"),
            // Ports are the default network's where none is named, and so are names; who is not root has another.
            (asking(&[], &["80:80"], &[]), alone, alone),
            (asking(&[tap], &[], &[]), "tap", "tap"),
        ] {
            assert_eq!(networking.mode(Level::Process), process, "{networking:?}");
            assert_eq!(networking.mode(Level::Container), container, "{networking:?}");
        }
        for (networking, words) in [
            (asking(&["none", "web"], &[], &[]), "none, host and pasta"),
            (asking(&["web", "web,ip=10.0.0.2"], &[], &[]), "web is named twice"),
            (asking(&["none"], &["80:80"], &[]), "without a network"),
            (asking(&["none"], &[], &["x"]), "on a network"),
            (asking(&["host"], &["80:80"], &[]), "host's own interfaces"),
            (asking(&[tap, "web"], &[], &[]), "no other networks"),
            (asking(&[tap], &["80:80"], &[]), "no other networks"),
            (asking(&["tap=vm0"], &[], &[]), "needs an address"),
            (asking(&["web,ip=x"], &[], &[]), "ip=x"),
        ] {
            let error = networking.check(Level::Paravirt).unwrap_err().to_string();
            assert!(error.contains(words), "{networking:?}: {error}");
        }
    }

    #[test]
    fn an_instance_has_its_name_its_id_and_others() {
        let names = |name: &str| {
            let aliases = vec!["web".parse().unwrap(), "x".parse().unwrap()];
            let names =
                asking(&[], &[], &["x", "y"]).names(name, &"0123456789abcdef".repeat(4), aliases);
            names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("Web"), ["web", "0123456789ab", "x", "y"]);
        // Not every instance's name is one of the name service.
        assert_eq!(names("web..1"), ["0123456789ab", "x", "y", "web"]);
    }

    #[test]
    fn a_guest_has_a_queue_for_each_processor() {
        let limits = |cpus| Limits { cpus, ..Limits::default() };
        assert_eq!(queues(Level::Paravirt, limits(None)), 1);
        assert_eq!(queues(Level::Paravirt, limits(Some(2.5))), 3);
        assert_eq!(queues(Level::Paravirt, limits(Some(100.0))), 8);
        assert_eq!(queues(Level::Fullvirt, limits(Some(4.0))), 1);
    }
}
