//! How an instance is to be connected, as it was asked for; what became of that is in [`connected`].

mod connected;

use std::fs;

use isolab_isolation::{IsolationError, Level, Link, Network, TapNetwork, package};
use isolab_network::{
    DEFAULT_NETWORK, Folders, HostName, NetworkError, NetworkName, NetworkOption, Networks,
    PublishedPort, USER_MODE, find_user_mode,
};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

pub use self::connected::{Attachment, Connected};
use crate::error::InstanceError;

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
}
