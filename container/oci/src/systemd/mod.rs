//! Cgroups as systemd makes them: a transient scope for each container, over D-Bus
//! (org.freedesktop.systemd1(5)). systemd owns the tree above; below the scope, which is delegated, the runtime goes on as
//! with cgroups of its own.

mod bus;
mod limits;
mod name;
mod wire;

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use isolab_container::oci::{LinuxResources, Spec};
use isolab_container::{CgroupManager, is_root_of_host};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use self::bus::{Bus, Refused};
use self::name::Name;
use self::wire::{Argument, Method, Value};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";

/// The system's manager; without root, the user's own.
#[derive(Debug)]
struct Systemd(Bus);

impl Systemd {
    fn connect() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let addresses = match is_root_of_host() {
            true => variable("DBUS_SYSTEM_BUS_ADDRESS")
                .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned()),
            false => match (variable("DBUS_SESSION_BUS_ADDRESS"), variable("XDG_RUNTIME_DIR")) {
                (Some(addresses), _) => addresses,
                (None, Some(folder)) => format!("unix:path={folder}/bus"),
                (None, None) => bail!(
                    "--systemd-cgroup without root needs the user's bus: DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR"
                ),
            },
        };
        let bus = Bus::connect(&addresses).context(
            "--systemd-cgroup needs systemd; elsewhere ask for cgroups that are made directly: podman --cgroup-manager \
             cgroupfs; dockerd --exec-opt native.cgroupdriver=cgroupfs; SystemdCgroup = false of containerd",
        )?;
        Ok(Systemd(bus))
    }

    fn call(&mut self, member: &str, arguments: &[Argument]) -> Result<wire::Message> {
        let method = Method { destination: SYSTEMD, path: PATH, interface: MANAGER, member };
        self.0.call(method, arguments)
    }

    /// The cgroup that its slices are in: not the top, where it is itself in a container, or a user's.
    fn own_cgroup(&mut self) -> Result<PathBuf> {
        let interface = "org.freedesktop.DBus.Properties";
        let get = Method { destination: SYSTEMD, path: PATH, interface, member: "Get" };
        let answer =
            self.0.call(get, &[Argument::Text(MANAGER), Argument::Text("ControlGroup")])?;
        let path = answer.texts.first().context("systemd does not tell its cgroup")?;
        Ok(Path::new("/").join(path.trim_start_matches('/')))
    }

    /// Calls for a job, and waits until it is done.
    fn job(&mut self, member: &str, arguments: &[Argument]) -> Result<()> {
        self.0.listen(&format!("type='signal',interface='{MANAGER}',member='JobRemoved'"))?;
        // Without it none are sent.
        self.call("Subscribe", &[])?;
        let answer = self.call(member, arguments)?;
        let job = answer.texts.first().with_context(|| format!("{member} gives no job"))?;
        loop {
            let signal = self.0.signal()?;
            let [of, unit, result] = signal.texts.as_slice() else { continue };
            if signal.member != "JobRemoved" || of != job {
                continue;
            }
            return match result.as_str() {
                "done" => Ok(()),
                _ => bail!("the job of {unit} ends as {result:?}"),
            };
        }
    }
}

/// A container's scope.
#[derive(Debug)]
pub struct Scope {
    systemd: Systemd,
    name: Name,
    cgroup: PathBuf,
    id: String,
    resources: LinuxResources,
    made: Rc<Cell<bool>>,
}

/// A unit by its name, which may be another's as long as it is not made.
#[derive(Debug)]
pub struct Unit {
    pub name: String,
    made: Rc<Cell<bool>>,
}

impl Unit {
    pub fn is_made(&self) -> bool {
        self.made.get()
    }
}

impl Scope {
    /// Of a container that is to be made by this configuration.
    pub fn new(id: &str, spec: &Spec) -> Result<Self> {
        let usual = if is_root_of_host() { "system.slice" } else { "user.slice" };
        let linux = spec.linux().as_ref();
        let name = Name::new(linux.and_then(|linux| linux.cgroups_path().as_deref()), id, usual)?;
        let below = name.cgroup()?;
        let mut systemd = Systemd::connect()?;
        let cgroup = systemd.own_cgroup()?.join(below);
        let resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        Ok(Scope { systemd, name, cgroup, id: id.to_owned(), resources, made: Rc::default() })
    }

    /// What is known of it when it is somebody else's.
    pub fn unit(&self) -> Unit {
        Unit { name: self.name.scope.clone(), made: Rc::clone(&self.made) }
    }

    fn start(&mut self, pid: i32) -> Result<()> {
        let version_2 = is_version_2();
        let text = |text: &str| Value::Text(text.to_owned());
        let io = if version_2 { "IOAccounting" } else { "BlockIOAccounting" };
        let mut properties = vec![
            ("Description", text(&format!("isolab-oci container {}", self.id))),
            ("Slice", text(&self.name.slice)),
            ("PIDs", Value::Numbers(vec![pid.unsigned_abs()])),
            // Ours to make cgroups in, with all controllers.
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            // One that failed goes as well.
            ("CollectMode", text("inactive-or-failed")),
        ];
        let accounting = ["CPUAccounting", "MemoryAccounting", "TasksAccounting", io];
        properties.extend(accounting.map(|name| (name, Value::Flag(true))));
        properties.extend(limits::properties(&self.resources, version_2));
        self.systemd.job(
            "StartTransientUnit",
            &[
                Argument::Text(&self.name.scope),
                Argument::Text("replace"),
                Argument::Properties(&properties),
                Argument::NoUnits,
            ],
        )
    }
}

impl CgroupManager for Scope {
    fn path(&self) -> &Path {
        &self.cgroup
    }

    fn adopt(&mut self, pid: i32) -> io::Result<()> {
        self.start(pid).map_err(|error| io::Error::other(format!("{error:#}")))?;
        self.made.set(true);
        Ok(())
    }
}

/// Ends the scope of a container that is gone. One that is not there is what we want.
pub fn stop(unit: &str) -> Result<()> {
    let mut systemd = Systemd::connect()?;
    let stopped = systemd.job("StopUnit", &[Argument::Text(unit), Argument::Text("replace")]);
    match stopped.or_else(absent) {
        // Of one that failed, the name would stay taken.
        Ok(()) => {
            systemd.call("ResetFailedUnit", &[Argument::Text(unit)]).map(drop).or_else(absent)
        }
        error => error,
    }
}

fn absent(error: anyhow::Error) -> Result<()> {
    let is_absent = error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.name.ends_with(".NoSuchUnit"));
    if is_absent { Ok(()) } else { Err(error) }
}

/// Tells systemd of limits that have changed.
pub fn set_limits(unit: &str, resources: &LinuxResources) -> Result<()> {
    let properties = limits::properties(resources, is_version_2());
    let arguments = [Argument::Text(unit), Argument::Flag(true), Argument::Properties(&properties)];
    Systemd::connect()?.call("SetUnitProperties", &arguments).map(drop)
}

fn is_version_2() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}
