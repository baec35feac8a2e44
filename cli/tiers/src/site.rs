//! The instances of a shop that runs, and where they are.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use isolab_instances::{Catalogue, Instance};

/// What `isolab compose` writes on its instances, as docker compose does.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// nginx.
    Web,
    /// The application server.
    App,
    /// PostgreSQL.
    Db,
}

impl Tier {
    /// All of them, as a request meets them.
    pub const ALL: [Self; 3] = [Self::Web, Self::App, Self::Db];

    /// Its service in the compose file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::App => "app",
            Self::Db => "db",
        }
    }

    /// Where it listens.
    pub fn port(self) -> u16 {
        match self {
            Self::Web => 80,
            Self::App => 8000,
            Self::Db => 5432,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a shop, or a part of it, is not there.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// There is none of its instances.
    #[error("no shop `{project}` is running")]
    NotUp {
        /// Its name.
        project: String,
    },
    /// A tier has no instance that runs.
    #[error("the tier {tier} does not run")]
    Missing {
        /// Which one.
        tier: Tier,
    },
    /// It runs, and is on no network.
    #[error("instance `{instance}` has no address")]
    NoAddress {
        /// Its name.
        instance: String,
    },
}

/// One instance of a tier.
#[derive(Clone, Debug)]
pub struct Member {
    /// Of which tier.
    pub tier: Tier,
    /// The instance.
    pub instance: Instance,
}

/// All instances of a shop, running or not, by tier and name.
#[derive(Debug)]
pub struct Site {
    /// Where they are looked for.
    pub catalogue: Catalogue,
    /// They.
    pub members: Vec<Member>,
}

impl Site {
    /// The shop of this name.
    ///
    /// # Errors
    /// There is none, or the instances cannot be listed.
    pub fn find(project: &str) -> Result<Self> {
        let catalogue = Catalogue::open_default()?;
        let mut members = Vec::new();
        for instance in catalogue.all()? {
            members.extend(tier_of(&instance, project).map(|tier| Member { tier, instance }));
        }
        if members.is_empty() {
            return Err(SiteError::NotUp { project: project.to_owned() }.into());
        }
        members.sort_by(|one, other| {
            (one.tier, one.instance.name()).cmp(&(other.tier, other.instance.name()))
        });
        Ok(Self { catalogue, members })
    }

    /// The first of a tier that runs.
    ///
    /// # Errors
    /// None does.
    pub fn one(&self, tier: Tier) -> Result<&Member, SiteError> {
        let mut of_tier = self.running().filter(|member| member.tier == tier);
        of_tier.next().ok_or(SiteError::Missing { tier })
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.instance.state.status.is_running())
    }
}

impl Member {
    /// Where it listens, as the host reaches it.
    ///
    /// # Errors
    /// It is on no network.
    pub fn address(&self) -> Result<SocketAddr, SiteError> {
        let attachment = self.instance.state.networks.first();
        let address = attachment.map(|it| IpAddr::V4(it.lease.address));
        let address = address.map(|address| SocketAddr::new(address, self.tier.port()));
        address.ok_or_else(|| SiteError::NoAddress { instance: self.instance.name().to_owned() })
    }

    /// Whether this address is one of its.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.instance.state.networks.iter().any(|it| IpAddr::V4(it.lease.address) == address)
    }

    /// Its level's name.
    pub fn level(&self) -> &'static str {
        self.instance.entry.level.name()
    }
}

fn tier_of(instance: &Instance, project: &str) -> Option<Tier> {
    let labels = &instance.config.as_ref()?.labels;
    if labels.get(PROJECT).is_none_or(|it| it != project) {
        return None;
    }
    let service = labels.get(SERVICE)?;
    Tier::ALL.into_iter().find(|tier| tier.name() == service)
}
