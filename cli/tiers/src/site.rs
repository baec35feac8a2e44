//! The instances of a shop that runs, and where they are.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use isolab_instances::{Catalogue, Instance};

use crate::http::get_json;

/// Who does not tell within that is too busy to.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What `isolab compose` writes on its instances, as docker compose does.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";

/// One of the three, or who watches over the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// nginx.
    Web,
    /// The application server.
    App,
    /// PostgreSQL: one, or one that writes and one that follows.
    Db,
    /// The monitor of two databases, which no request meets.
    Monitor,
}

impl Tier {
    /// Which one a service of the compose files is of.
    fn of_service(service: &str) -> Option<Self> {
        match service {
            "web" => Some(Self::Web),
            "app" => Some(Self::App),
            "db" | "db-standby" => Some(Self::Db),
            "db-monitor" => Some(Self::Monitor),
            _ => None,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::App => "app",
            Self::Db => "db",
            Self::Monitor => "monitor",
        }
    }

    /// Where it listens.
    pub fn port(self) -> u16 {
        match self {
            Self::Web => 80,
            Self::App => 8000,
            Self::Db | Self::Monitor => 5432,
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
    /// Of several databases the application has none that writes.
    #[error("no database takes writes at the moment")]
    NoPrimary,
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

    /// The database that the application writes to.
    ///
    /// # Errors
    /// There is none, or the application cannot tell.
    pub async fn primary(&self) -> Result<&Member> {
        let databases: Vec<_> = self.running().filter(|it| it.tier == Tier::Db).collect();
        if let [only] = databases[..] {
            return Ok(only);
        }
        let app = self.one(Tier::App)?.address()?;
        let stats = get_json(app, "/api/stats", PATIENCE).await?;
        let address = stats["database"]["address"].as_str().and_then(|it| it.parse().ok());
        let is_it = |member: &&Member| address.is_some_and(|it| member.has_address(it));
        Ok(databases.into_iter().find(is_it).ok_or(SiteError::NoPrimary)?)
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
    Tier::of_service(labels.get(SERVICE)?)
}
