//! From a service to what its instances are asked for, at a level.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use isolab_images::ingest::BlobId;
use isolab_images::{Image, Store};
use isolab_instances::{Config, HealthCheck, HostName, InstanceError, Networking};
use isolab_isolation::volumes::VolumeName;
use isolab_isolation::{
    Filesystem, InstanceName, IsolationError, Level, Limits, MountSource, Request, VolumeMount,
};
use serde_json::json;

use crate::error::ComposeError;
use crate::label;
use crate::model::{Attached, Condition, Membership, MountKind, Service};
use crate::project::Project;

/// The level of services of which nobody says one.
const USUAL_LEVEL: Level = Level::Container;

/// Levels that are asked for, whatever the files say.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// Of all services.
    pub all: Option<Level>,
    /// Of single ones, by their names.
    pub of: BTreeMap<String, Level>,
}

impl Levels {
    /// A service's level: what is asked for it, then for all, then what the files say of it, then of all.
    pub fn level(&self, project: &Project, service: &str) -> Level {
        let said = || project.services.get(service).and_then(|it| it.isolation);
        let asked = self.of.get(service).copied().or(self.all);
        asked.or_else(said).or(project.isolation).unwrap_or(USUAL_LEVEL)
    }
}

/// What a service's instances are to be.
pub struct Plan<'a> {
    /// The project.
    project: &'a Project,
    /// The service's name.
    pub service: &'a str,
    /// What is said of it.
    pub said: &'a Service,
    /// Its level.
    pub level: Level,
    /// Its image.
    pub image: Image,
    /// How many instances there are to be.
    pub replicas: u32,
    request: Request,
    anonymous: Vec<(PathBuf, bool, Vec<String>)>,
    networking: Networking,
    health: Option<HealthCheck>,
    /// What of all that makes an instance another one.
    pub hash: String,
}

impl<'a> Plan<'a> {
    /// Plans a service, whose image is in the store.
    ///
    /// # Errors
    /// There is no image, or the level cannot do what the service asks for.
    pub fn new(
        project: &'a Project,
        service: &'a str,
        level: Level,
        replicas: Option<u32>,
        store: &Store,
    ) -> Result<Self, ComposeError> {
        let said = project
            .services
            .get(service)
            .ok_or_else(|| ComposeError::NoSuchService(service.to_owned()))?;
        let failed = |source| ComposeError::Image { service: service.to_owned(), source };
        let name = project.image(service);
        let image = store.resolve(&name).map_err(failed)?;
        let health = said.health.clone().unwrap_or_default().check(image.healthcheck());
        let (filesystem, anonymous) = filesystem(project, said)?;
        let request = Request {
            entrypoint: said.entrypoint.clone(),
            command: said.command.clone().unwrap_or_default(),
            env: said.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            workdir: said.working_dir.clone(),
            user: said.user.clone(),
            hostname: said.hostname.clone().unwrap_or_default(),
            limits: Limits {
                memory_bytes: said.resources.memory,
                cpus: said.resources.cpus,
                pids: said.resources.pids,
            },
            filesystem,
            security: said.security.clone(),
        };
        let replicas = replicas.or(said.resources.replicas).unwrap_or(1);
        if said.instance_name.is_some() && replicas > 1 {
            let why = format!("service {service}: {replicas} instances cannot have one name");
            return Err(ComposeError::invalid(&said.place, why));
        }
        let networking = networking(project, service, said);
        let mut plan = Self {
            project,
            service,
            said,
            level,
            image,
            replicas,
            request,
            anonymous,
            networking,
            health,
            hash: String::new(),
        };
        plan.hash = plan.hash();
        plan.check().map_err(|source| ComposeError::Level {
            place: said.place.clone(),
            service: service.to_owned(),
            level,
            source: Box::new(source),
        })?;
        Ok(plan)
    }

    /// Refuses what the level cannot do.
    fn check(&self) -> Result<(), InstanceError> {
        let (config, _) = self.request_of("check").and_then(|request| {
            Config::of_image(&self.project.image(self.service), &self.image, request, self.level)
        })?;
        config.request.filesystem.check(self.level)?;
        match self.said.attached {
            // They may not be there yet, and any level can be on them.
            Attached::Networks(_) => Ok(()),
            Attached::Host | Attached::None => self.networking.check(self.level),
        }
    }

    /// The name of its `number`th instance, as Docker has it.
    ///
    /// # Errors
    /// It is too long.
    pub fn instance_name(&self, number: u32) -> Result<InstanceName, ComposeError> {
        if let Some(name) = &self.said.instance_name {
            return Ok(name.clone());
        }
        let name = format!("{}-{}-{number}", self.project.name, self.service);
        name.parse().map_err(|error| {
            ComposeError::invalid(&self.said.place, format!("service {}: {error}", self.service))
        })
    }

    fn request_of(&self, name: &str) -> Result<Request, InstanceError> {
        let mut request = self.request.clone();
        if request.hostname.is_empty() {
            request.hostname = name
                .parse::<InstanceName>()
                .map_or_else(|_| name.to_owned(), |name| name.to_hostname());
        }
        for (target, copy_up, options) in &self.anonymous {
            let name = VolumeName::random()
                .map_err(|source| IsolationError::Host { action: "read /dev/urandom", source })?;
            request.filesystem.mounts.push(VolumeMount {
                target: target.clone(),
                source: MountSource::Volume { name, anonymous: true, copy_up: *copy_up },
                read_only: false,
                options: VolumeMount::options(options.clone()),
            });
        }
        Ok(request)
    }

    /// The project's name.
    pub(crate) fn project_name(&self) -> &'a str {
        &self.project.name
    }

    /// What its `number`th instance is asked for.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn config(&self, name: &InstanceName, number: u32) -> Result<Config, InstanceError> {
        let request = self.request_of(name.as_str())?;
        let image = self.project.image(self.service);
        let (mut config, _) = Config::of_image(&image, &self.image, request, self.level)?;
        config.networking = self.networking.clone();
        (config.interactive, config.terminal) = (self.said.stdin_open, self.said.tty);
        config.restart = self.said.restart;
        config.health = self.health.clone();
        config.stop_signal = self.said.stop_signal.unwrap_or(config.stop_signal);
        if let Some(period) = self.said.stop_grace_period {
            // Whole seconds, and no second less than was asked for.
            config.stop_timeout = period.as_secs() + u64::from(period.subsec_nanos() > 0);
        }
        config.log = self.said.log;
        config.labels.extend(self.said.labels.clone());
        config.labels.extend(self.labels(number));
        Ok(config)
    }

    /// Docker's, by which tools find instances, and we ours.
    fn labels(&self, number: u32) -> BTreeMap<String, String> {
        let files: Vec<String> =
            self.project.files.iter().map(|file| file.display().to_string()).collect();
        let depends_on: Vec<String> = self
            .said
            .depends_on
            .iter()
            .map(|(name, it)| format!("{name}:{}:{}", word(it.condition), it.restart))
            .collect();
        BTreeMap::from(
            [
                (label::PROJECT, self.project.name.clone()),
                (label::SERVICE, self.service.to_owned()),
                (label::NUMBER, number.to_string()),
                (label::ONE_OFF, "False".to_owned()),
                (label::HASH, self.hash.clone()),
                (label::IMAGE, self.image.digest().to_owned()),
                (label::FOLDER, self.project.folder.display().to_string()),
                (label::FILES, files.join(",")),
                (label::DEPENDS_ON, depends_on.join(",")),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    fn hash(&self) -> String {
        let said = self.said;
        let health = &self.health;
        let all = json!([
            self.level,
            self.image.digest(),
            self.request,
            self.networking,
            health,
            said.restart,
            said.stop_signal,
            said.stop_grace_period,
            said.log,
            said.labels,
            [said.stdin_open, said.tty],
            self.anonymous,
        ]);
        BlobId::of(all.to_string().as_bytes()).hex().to_owned()
    }

    /// Makes folders of the host that are to be mounted and are not there, as Docker does.
    ///
    /// # Errors
    /// One cannot be made.
    pub fn make_folders(&self) -> Result<(), ComposeError> {
        for mount in &self.said.mounts {
            if let MountKind::Host { path, create: true } = &mount.kind {
                fs::create_dir_all(path).or_else(|source| match path.exists() {
                    true => Ok(()),
                    false => Err(ComposeError::Host { action: "make a folder to mount", source }),
                })?;
            }
        }
        Ok(())
    }
}

/// The specification's word.
fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "service_started",
        Condition::Healthy => "service_healthy",
        Condition::Completed => "service_completed_successfully",
    }
}

/// What is mounted, and anonymous volumes, which each instance has of its own.
#[allow(clippy::type_complexity, reason = "two lists of one loop")]
fn filesystem(
    project: &Project,
    said: &Service,
) -> Result<(Filesystem, Vec<(PathBuf, bool, Vec<String>)>), ComposeError> {
    let mut mounts = Vec::new();
    let mut anonymous = Vec::new();
    for mount in &said.mounts {
        let source = match &mount.kind {
            MountKind::Anonymous { copy_up } => {
                anonymous.push((mount.target.clone(), *copy_up, mount.options.clone()));
                continue;
            }
            MountKind::Memory => MountSource::Memory,
            MountKind::Host { path, create } => {
                if !create && !path.exists() {
                    let why = format!("there is no {}", path.display());
                    return Err(ComposeError::invalid(&mount.place, why));
                }
                MountSource::Host(path.clone())
            }
            MountKind::Volume { name, copy_up } => {
                let name = project.volume_name(name).parse::<VolumeName>();
                let name =
                    name.map_err(|why| ComposeError::invalid(&mount.place, why.to_string()))?;
                MountSource::Volume { name, anonymous: false, copy_up: *copy_up }
            }
        };
        mounts.push(VolumeMount {
            target: mount.target.clone(),
            source,
            read_only: mount.read_only,
            options: VolumeMount::options(mount.options.clone()),
        });
    }
    Ok((Filesystem { mounts, read_only: said.read_only, hosts: said.hosts.clone() }, anonymous))
}

fn networking(project: &Project, service: &str, said: &Service) -> Networking {
    let (networks, is_named) = match &said.attached {
        Attached::None => (vec!["none".to_owned()], false),
        Attached::Host => (vec!["host".to_owned()], false),
        Attached::Networks(all) => (all.iter().map(|it| option(project, it)).collect(), true),
    };
    // Others find it by its service's name, if that can be one.
    let alias = service.parse::<HostName>().ok().filter(|_| is_named);
    Networking { networks, ports: said.ports.clone(), aliases: alias.into_iter().collect() }
}

/// As `isolab_network::NetworkOption` reads it.
fn option(project: &Project, place: &Membership) -> String {
    let mut option = project.network_name(&place.network);
    option.extend(place.address.map(|address| format!(",ip={address}")));
    option.extend(place.mac.map(|mac| format!(",mac={mac}")));
    option.extend(place.aliases.iter().map(|alias| format!(",alias={alias}")));
    option
}
