//! A service.
//! See <https://github.com/compose-spec/compose-spec/blob/main/05-services.md>.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use isolab_instances::{HealthOptions, LogOptions, RestartPolicy, parse_signal};
use isolab_isolation::{
    Device, HostEntry, InstanceName, Level, Seccomp, Security, Ulimit, UserNamespace,
    parse_hostname, parse_size, read_profile,
};
use isolab_network::PublishedPort;

use super::build::Build;
use super::dependency::{self, Dependency};
use super::fields::{Fields, read_text, valued};
use super::health;
use super::known::Known;
use super::membership::{self, Attached};
use super::mount::{self, Mount};
use super::port;
use super::resources::Resources;
use super::units::{duration, words};
use crate::error::ComposeError;
use crate::file::interpolate::Variables;
use crate::file::merge::as_mapping;
use crate::file::node::{Key, Node, Value};
use crate::file::variables;
use crate::place::Place;

/// When a service's image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// When it is not in the store.
    #[default]
    Missing,
    /// Never.
    Never,
    /// It is built each time.
    Build,
}

/// What a service is made of.
#[derive(Clone, Debug)]
pub struct Service {
    /// Where it was written.
    pub place: Place,
    /// Its image.
    pub image: Option<String>,
    /// How its image is made.
    pub build: Option<Build>,
    /// When its image is fetched.
    pub pull_policy: PullPolicy,
    /// The name of its instance, if the files say one.
    pub instance_name: Option<InstanceName>,
    /// In the place of the image's command.
    pub command: Option<Vec<String>>,
    /// In the place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Variables.
    pub environment: BTreeMap<String, String>,
    /// What reaches it from outside.
    pub ports: Vec<PublishedPort>,
    /// What is mounted in it.
    pub mounts: Vec<Mount>,
    /// How it is connected.
    pub attached: Attached,
    /// What it waits for.
    pub depends_on: BTreeMap<String, Dependency>,
    /// How to find out whether it is well.
    pub health: Option<HealthOptions>,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// How much it may use, and of how many instances it is.
    pub resources: Resources,
    /// User and group.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Whether its image cannot be written.
    pub read_only: bool,
    /// What it may do beyond running.
    pub security: Security,
    /// Its host name.
    pub hostname: Option<String>,
    /// Lines of its /etc/hosts.
    pub hosts: Vec<HostEntry>,
    /// What is said of it.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end.
    pub stop_signal: Option<i32>,
    /// How long it may take then.
    pub stop_grace_period: Option<Duration>,
    /// Whether it has an input.
    pub stdin_open: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// How its output is kept.
    pub log: LogOptions,
    /// It is there if one of these is chosen; always if there are none.
    pub profiles: Vec<String>,
    /// Its level, if the files say one.
    pub isolation: Option<Level>,
}

/// What the specification has and isolab has not, and why.
const REFUSED: &[(&str, &str)] = &[
    ("annotations", "instances have labels"),
    ("attach", "all services are shown, or those that are named"),
    ("blkio_config", "no level limits what its disk does"),
    ("cgroup", "each instance has a cgroup of its own"),
    ("cgroup_parent", "isolab's cgroups have a place of their own"),
    ("cpu_count", "use cpus"),
    ("cpu_percent", "use cpus"),
    ("cpu_period", "use cpus"),
    ("cpu_quota", "use cpus"),
    ("cpu_rt_period", "no level gives real time"),
    ("cpu_rt_runtime", "no level gives real time"),
    ("cpu_shares", "use cpus"),
    ("cpuset", "use cpus"),
    ("credential_spec", "that is Windows'"),
    ("device_cgroup_rules", "use devices"),
    ("dns", "names are answered by the network"),
    ("dns_opt", "names are answered by the network"),
    ("dns_search", "names are answered by the network"),
    ("domainname", "use hostname with dots"),
    ("external_links", "use a network that both are on"),
    ("gpus", "no level has a graphics card"),
    ("isolation", "that is Windows'; use x-isolation"),
    ("label_file", "use labels"),
    ("links", "services on one network find each other by name; use aliases for others"),
    ("mac_address", "use mac_address of a network"),
    ("mem_reservation", "nothing is set aside"),
    ("mem_swappiness", "a limit of memory is one of memory"),
    ("memswap_limit", "a limit of memory is one of memory"),
    ("models", "isolab runs no models"),
    ("oom_kill_disable", "a workload that is out of memory would stand still"),
    ("post_start", "use a service that depends on this one"),
    ("pre_start", "use a service that this one depends on"),
    ("pre_stop", "use the stop signal"),
    ("provider", "services are instances of isolab"),
    ("pull_refresh_after", "an image is fetched always, or when it is missing"),
    ("runtime", "use x-isolation"),
    ("storage_opt", "an instance may write as much as its data folder holds"),
    ("use_api_socket", "there is no engine"),
    ("volumes_from", "use named volumes"),
];

impl Service {
    pub(super) fn read(key: &Key, node: Node, known: &Known) -> Result<Self, ComposeError> {
        let name = key.text.as_str();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            let name = name.escape_debug();
            let why = format!("`{name}` cannot be a service's name: A-Z a-z 0-9 . _ -");
            return Err(ComposeError::invalid(&key.place, why));
        }
        let what = format!("service {name}");
        let mut fields = Fields::of(node, what.clone())?;
        let build = fields.take("build");
        let build = build.map(|node| Build::read(node, &what, known.secrets)).transpose()?;
        let resources = Resources::read(&mut fields, &what)?;
        let restart = fields.parse("restart")?.or(resources.restart).unwrap_or_default();
        let health = fields.take("healthcheck");
        let depends_on = fields.take("depends_on");
        // Other services on its networks reach all of its ports.
        let _: Vec<String> = fields.list("expose")?;
        let service = Self {
            place: key.place.clone(),
            image: fields.text("image")?,
            build,
            pull_policy: pull_policy(&mut fields)?.unwrap_or_default(),
            instance_name: fields.parse("container_name")?,
            command: command(&mut fields, "command")?,
            entrypoint: command(&mut fields, "entrypoint")?,
            environment: environment(&mut fields, known.variables)?,
            ports: port::read_all(&mut fields)?,
            mounts: mount::read_all(&mut fields, known)?,
            attached: membership::attached(&mut fields, known)?,
            depends_on: depends_on
                .map(|node| dependency::read_all(node, &what))
                .transpose()?
                .unwrap_or_default(),
            health: health.map(|node| health::read(node, &what)).transpose()?,
            restart,
            resources,
            user: fields.text("user")?,
            working_dir: fields.text("working_dir")?,
            read_only: fields.flag("read_only")?.unwrap_or(false),
            security: security(&mut fields)?,
            hostname: fields.read("hostname", parse_hostname)?,
            hosts: hosts(&mut fields)?,
            labels: valued(fields.assignments("labels")?),
            stop_signal: fields.read("stop_signal", parse_signal)?,
            stop_grace_period: fields.read("stop_grace_period", duration)?,
            stdin_open: fields.flag("stdin_open")?.unwrap_or(false),
            tty: fields.flag("tty")?.unwrap_or(false),
            log: log(&mut fields)?,
            profiles: fields.list("profiles")?,
            isolation: fields.parse("x-isolation")?,
        };
        platform(&mut fields)?;
        // For `watch`, which isolab does not have.
        fields.take("develop");
        let place = fields.place.clone();
        fields.finish(REFUSED)?;
        if service.image.is_none() && service.build.is_none() {
            let why = format!("{what}: neither image nor build");
            return Err(ComposeError::invalid(&place, why));
        }
        Ok(service)
    }
}

fn pull_policy(fields: &mut Fields) -> Result<Option<PullPolicy>, ComposeError> {
    let what = fields.name("pull_policy");
    let Some(node) = fields.take("pull_policy") else { return Ok(None) };
    let place = node.place.clone();
    match node.into_text(&what)?.as_str() {
        "always" => Ok(Some(PullPolicy::Always)),
        "missing" | "if_not_present" => Ok(Some(PullPolicy::Missing)),
        "never" => Ok(Some(PullPolicy::Never)),
        "build" => Ok(Some(PullPolicy::Build)),
        time if ["daily", "weekly", "refresh"].contains(&time) || time.starts_with("every_") => {
            let why =
                "nothing says when an image was fetched; always, missing, never and build are";
            Err(ComposeError::unsupported(&place, format!("{what} {time}"), why))
        }
        other => {
            let other = other.escape_debug();
            let why = format!("{what}: `{other}`: expected always, missing, never or build");
            Err(ComposeError::invalid(&place, why))
        }
    }
}

/// `SOURCE[:TARGET[:PERMISSIONS]]`, or a mapping of these.
fn devices(fields: &mut Fields) -> Result<Vec<Device>, ComposeError> {
    let what = fields.name("devices");
    let Some(list) = fields.take("devices") else { return Ok(Vec::new()) };
    let mut devices = Vec::new();
    for item in list.into_items(&what)? {
        let place = item.place.clone();
        let text = match item.value {
            Value::Scalar(text) => text.text,
            _ => {
                let mut fields = Fields::of(item, what.clone())?;
                let source = fields.text("source")?.unwrap_or_default();
                let target = fields.text("target")?.unwrap_or_else(|| source.clone());
                let permissions = fields.text("permissions")?.unwrap_or_else(|| "rwm".to_owned());
                fields.finish(&[])?;
                format!("{source}:{target}:{permissions}")
            }
        };
        // `vendor.com/class=name`
        if !text.starts_with('/') && text.contains('=') {
            let why = "devices are nodes of the host, by their paths";
            let what = format!("{what} {}", text.escape_debug());
            return Err(ComposeError::unsupported(&place, what, why));
        }
        let device = text.parse::<Device>();
        devices
            .push(device.map_err(|why| ComposeError::invalid(&place, format!("{what}: {why}")))?);
    }
    Ok(devices)
}

/// A line that is split, or a list.
fn command(fields: &mut Fields, name: &str) -> Result<Option<Vec<String>>, ComposeError> {
    let what = fields.name(name);
    let Some(node) = fields.take(name) else { return Ok(None) };
    match &node.value {
        Value::Scalar(_) => read_text(node, &what, words).map(Some),
        _ => {
            let items = node.into_items(&what)?.into_iter();
            items.map(|item| item.into_text(&what)).collect::<Result<_, _>>().map(Some)
        }
    }
}

/// Of the files first, which `environment` may change.
fn environment(
    fields: &mut Fields,
    variables: &Variables,
) -> Result<BTreeMap<String, String>, ComposeError> {
    let mut all = BTreeMap::new();
    let what = fields.name("env_file");
    let files = fields.take("env_file").map(|node| as_mapping(node, "env_file")).transpose()?;
    for item in files.map_or(Ok(Vec::new()), |node| node.into_items(&what))? {
        let place = item.place.clone();
        let (file, required) = match &item.value {
            Value::Scalar(file) => (file.text.clone(), true),
            _ => {
                let mut fields = Fields::of(item, what.clone())?;
                let file = fields.text("path")?.unwrap_or_default();
                let required = fields.flag("required")?.unwrap_or(true);
                fields.finish(&[("format", "files have the specification's own syntax")])?;
                (file, required)
            }
        };
        let path = place.path(&file);
        if !required && !path.exists() {
            continue;
        }
        // One without a value is what we have.
        let read = variables::read(&path, variables)?.into_iter();
        all.extend(read.filter_map(|(name, value)| Some((name, value?))));
    }
    for (name, value) in fields.assignments("environment")? {
        // As Docker: one that we do not have is not passed on.
        if let Some(value) = value.or_else(|| variables.get(&name).cloned()) {
            all.insert(name, value);
        }
    }
    Ok(all)
}

fn hosts(fields: &mut Fields) -> Result<Vec<HostEntry>, ComposeError> {
    let what = fields.name("extra_hosts");
    let Some(node) = fields.take("extra_hosts") else { return Ok(Vec::new()) };
    let mut hosts = Vec::new();
    for (key, node) in as_mapping(node, "extra_hosts")?.into_entries(&what)? {
        let place = node.place.clone();
        let name = parse_hostname(&key.text)
            .map_err(|why| ComposeError::invalid(&key.place, format!("{what}: {why}")))?;
        let addresses = match node.value {
            Value::Sequence(items) => items,
            _ => vec![node],
        };
        for address in addresses {
            let text = address.into_text(&what)?;
            if text == "host-gateway" {
                let why = "give the address, which the network's `gateway` says";
                return Err(ComposeError::unsupported(
                    &place,
                    format!("{what}: host-gateway"),
                    why,
                ));
            }
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            let address = bare.parse::<IpAddr>().map_err(|_| {
                let text = text.escape_debug();
                ComposeError::invalid(&place, format!("{what}: `{text}` is no IP address"))
            })?;
            hosts.push(HostEntry { names: vec![name.clone()], address });
        }
    }
    Ok(hosts)
}

fn log(fields: &mut Fields) -> Result<LogOptions, ComposeError> {
    let what = fields.name("logging");
    let mut log = LogOptions::default();
    let Some(node) = fields.take("logging") else { return Ok(log) };
    let mut logging = Fields::of(node, what.clone())?;
    let place = logging.place.clone();
    let driver = logging.text("driver")?;
    if let Some(driver) =
        driver.filter(|it| !["json-file", "local", "k8s-file"].contains(&it.as_str()))
    {
        let why = "logs are files of each instance";
        return Err(ComposeError::unsupported(&place, format!("{what}: driver {driver}"), why));
    }
    if let Some(options) = logging.take("options") {
        let mut options = Fields::of(options, format!("{what}.options"))?;
        log.max_size = options.read("max-size", parse_size)?.unwrap_or(log.max_size).max(4096);
        log.max_file = options.parse("max-file")?.unwrap_or(log.max_file).clamp(1, 1000);
        options.finish(&[])?;
    }
    logging.finish(&[])?;
    Ok(log)
}

fn platform(fields: &mut Fields) -> Result<(), ComposeError> {
    let what = fields.name("platform");
    let Some(node) = fields.take("platform") else { return Ok(()) };
    let place = node.place.clone();
    let platform = node.into_text(&what)?;
    match platform.as_str() {
        "linux" | "linux/amd64" | "linux/x86_64" => Ok(()),
        _ => {
            let why = "instances are linux/amd64";
            Err(ComposeError::unsupported(&place, format!("{what} {platform}"), why))
        }
    }
}

fn security(fields: &mut Fields) -> Result<Security, ComposeError> {
    let mut security = Security {
        privileged: fields.flag("privileged")?.unwrap_or(false),
        cap_add: fields.list("cap_add")?,
        cap_drop: fields.list("cap_drop")?,
        devices: devices(fields)?,
        ulimits: ulimits(fields)?,
        sysctls: valued(fields.assignments("sysctls")?),
        shm_size: fields.read("shm_size", parse_size)?.filter(|size| *size != 0),
        init: fields.flag("init")?.unwrap_or(false),
        groups: fields.list("group_add")?,
        oom_score_adj: fields.parse("oom_score_adj")?,
        host_pid: shared(fields, "pid")?,
        host_ipc: shared(fields, "ipc")?,
        host_uts: shared(fields, "uts")?,
        user_namespace: fields.parse::<UserNamespace>("userns_mode")?.unwrap_or_default(),
        ..Security::default()
    };
    let what = fields.name("security_opt");
    for (text, place) in fields.words("security_opt")? {
        let (name, value) = text.split_once(['=', ':']).unwrap_or((&text, ""));
        match (name, value) {
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", path) if !path.is_empty() => {
                let path = place.path(path);
                let content = read_profile(&path)
                    .map_err(|why| ComposeError::invalid(&place, format!("{what}: {why}")))?;
                security.seccomp = Seccomp::Profile { path: path.display().to_string(), content };
            }
            ("no-new-privileges", "" | "true") => security.no_new_privileges = Some(true),
            ("no-new-privileges", "false") => security.no_new_privileges = Some(false),
            ("apparmor", profile) if !profile.is_empty() => {
                security.apparmor = Some(profile.to_owned());
            }
            ("label", "disable") => {}
            _ => {
                let why = "seccomp, no-new-privileges, apparmor and label:disable are";
                let what = format!("{what} {}", text.escape_debug());
                return Err(ComposeError::unsupported(&place, what, why));
            }
        }
    }
    Ok(security)
}

/// Whether a namespace is the host's.
fn shared(fields: &mut Fields, name: &str) -> Result<bool, ComposeError> {
    let what = fields.name(name);
    let Some(node) = fields.take(name) else { return Ok(false) };
    let place = node.place.clone();
    match node.into_text(&what)?.as_str() {
        "host" => Ok(true),
        "private" | "shareable" => Ok(false),
        other => {
            let why = "host and private are: an instance has namespaces of its own";
            Err(ComposeError::unsupported(&place, format!("{what} {other}"), why))
        }
    }
}

fn ulimits(fields: &mut Fields) -> Result<Vec<Ulimit>, ComposeError> {
    let what = fields.name("ulimits");
    let Some(node) = fields.take("ulimits") else { return Ok(Vec::new()) };
    let mut ulimits = Vec::new();
    for (key, node) in node.into_entries(&what)? {
        let text = match &node.value {
            Value::Scalar(both) => both.text.clone(),
            _ => {
                let mut fields = Fields::of(node, format!("{what}.{}", key.text))?;
                let (soft, hard) = (fields.text("soft")?, fields.text("hard")?);
                fields.finish(&[])?;
                let (Some(soft), Some(hard)) = (soft, hard) else {
                    let why = format!("{what}.{}: expected soft and hard", key.text);
                    return Err(ComposeError::invalid(&key.place, why));
                };
                format!("{soft}:{hard}")
            }
        };
        let limit = format!("{}={text}", key.text).parse();
        ulimits.push(limit.map_err(|why: String| {
            ComposeError::invalid(&key.place, format!("{what}.{}: {why}", key.text))
        })?);
    }
    Ok(ulimits)
}
