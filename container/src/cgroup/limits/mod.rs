//! `linux.resources` as writes to control files, a list for each controller, in version 1's or version 2's words.
//!
//! What a version has no word for is an error that names the field (`config-linux.md` of the runtime specification).

mod cpu;
mod io;
mod memory;
mod others;

pub use cpu::weight_from_shares;

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{CgroupError, files};

/// Of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// What a configuration asks of a controller, in one version's words.
type Settings = Result<Vec<Setting>, CgroupError>;

/// A controller that limits can be set by.
pub(super) struct Controller {
    name_1: &'static str,
    name_2: &'static str,
    settings_1: fn(&LinuxResources) -> Settings,
    settings_2: fn(&LinuxResources) -> Settings,
}

#[rustfmt::skip]
static CONTROLLERS: [Controller; 9] = [
    Controller { name_1: "memory", name_2: "memory", settings_1: memory::version_1, settings_2: memory::version_2 },
    Controller { name_1: "cpu", name_2: "cpu", settings_1: cpu::version_1, settings_2: cpu::version_2 },
    Controller { name_1: "cpuset", name_2: "cpuset", settings_1: cpu::sets, settings_2: cpu::sets },
    Controller { name_1: "pids", name_2: "pids", settings_1: others::pids, settings_2: others::pids },
    Controller { name_1: "blkio", name_2: "io", settings_1: io::version_1, settings_2: io::version_2 },
    Controller { name_1: "hugetlb", name_2: "hugetlb", settings_1: others::huge_pages_1, settings_2: others::huge_pages_2 },
    Controller { name_1: "rdma", name_2: "rdma", settings_1: others::rdma, settings_2: others::rdma },
    Controller { name_1: "net_cls", name_2: "net_cls", settings_1: others::network_class, settings_2: others::no_network_class },
    Controller { name_1: "net_prio", name_2: "net_prio", settings_1: others::network_priorities, settings_2: others::no_network_priorities },
];

/// A controller that a configuration needs, and the first of its fields that does.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    controller: &'static Controller,
    pub field: &'static str,
}

/// The controllers that `resources` needs, `unified` apart.
pub(super) fn wanted(resources: &LinuxResources) -> Vec<Wanted> {
    let field = |settings: fn(&LinuxResources) -> Settings| match settings(resources) {
        Ok(settings) => settings.first().map(|setting| setting.field),
        Err(CgroupError::Unsupported { field, .. } | CgroupError::Invalid { field, .. }) => {
            Some(field)
        }
        Err(_) => None,
    };
    let asked = |controller: &'static Controller| {
        let field = field(controller.settings_1).or_else(|| field(controller.settings_2))?;
        Some(Wanted { controller, field })
    };
    CONTROLLERS.iter().filter_map(asked).collect()
}

impl Wanted {
    /// What that version calls the controller.
    pub(super) fn name(&self, version: Version) -> &'static str {
        match version {
            Version::One => self.controller.name_1,
            Version::Two => self.controller.name_2,
        }
    }

    /// Whether that version has words for all that `resources` asks.
    pub(super) fn check(
        &self,
        version: Version,
        resources: &LinuxResources,
    ) -> Result<(), CgroupError> {
        self.settings(version, resources).map(drop)
    }

    /// Writes what `resources` asks of it into the cgroup at `directory`.
    pub(super) fn set(
        &self,
        version: Version,
        resources: &LinuxResources,
        directory: &Path,
    ) -> Result<(), CgroupError> {
        write(self.settings(version, resources)?, directory)
    }

    fn settings(&self, version: Version, resources: &LinuxResources) -> Settings {
        match version {
            Version::One => (self.controller.settings_1)(resources),
            Version::Two => (self.controller.settings_2)(resources),
        }
    }

    /// There is no such controller here.
    pub(super) fn missing(&self, version: Version) -> CgroupError {
        CgroupError::NoController {
            controller: self.name(version).to_owned(),
            purpose: format!("linux.resources.{}", self.field),
        }
    }
}

/// One write to a control file.
struct Setting {
    /// Below `linux.resources`.
    field: &'static str,
    /// File and value; the first whose file is there is written.
    choices: Vec<(String, String)>,
    /// No file: no error.
    optional: bool,
    /// A file with a number that the value must not be below, if that was asked for.
    at_least: Option<&'static str>,
}

impl Setting {
    fn new(field: &'static str, file: impl Into<String>, value: impl ToString) -> Self {
        let choices = vec![(file.into(), value.to_string())];
        Setting { field, choices, optional: false, at_least: None }
    }

    /// Where the file is not there, this one is.
    fn or(mut self, file: impl Into<String>, value: impl ToString) -> Self {
        self.choices.push((file.into(), value.to_string()));
        self
    }

    fn optional(self, optional: bool) -> Self {
        Setting { optional, ..self }
    }

    fn write(&self, directory: &Path) -> Result<(), CgroupError> {
        // Nearly always there is one choice, and to write it tells whether it is there.
        let exists = |(file, _): &&(String, String)| directory.join(file).exists();
        let chosen = match self.choices.as_slice() {
            [only] => Some(only),
            several => several.iter().find(exists),
        };
        let missing = CgroupError::Unsupported { field: self.field, on: "by this host's kernel" };
        let Some((file, value)) = chosen else {
            return if self.optional { Ok(()) } else { Err(missing) };
        };
        if let (Some(least), Ok(value)) = (self.at_least, value.parse::<u64>())
            && files::read_number(directory, least).is_some_and(|used| used > value)
        {
            let problem = "less than what is in use, and checkBeforeUpdate is set";
            return Err(CgroupError::Invalid { field: self.field, problem });
        }
        match files::write(directory, file, value) {
            Err(CgroupError::Refused { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                if self.optional {
                    Ok(())
                } else {
                    Err(missing)
                }
            }
            Err(CgroupError::Refused { value, path, source }) => {
                Err(CgroupError::Limit { field: self.field, value, path, source })
            }
            other => other,
        }
    }
}

/// Writes them all. Of some that the kernel checks against each other (a quota within its period, memory within memory
/// and swap) the old values decide in which order they can be written: what is refused is tried again after the others.
fn write(mut settings: Vec<Setting>, directory: &Path) -> Result<(), CgroupError> {
    loop {
        let before = settings.len();
        let (mut refused, mut error) = (Vec::new(), None);
        for setting in settings {
            match setting.write(directory) {
                Ok(()) => {}
                Err(refusal @ CgroupError::Limit { .. }) => {
                    error.get_or_insert(refusal);
                    refused.push(setting);
                }
                Err(other) => return Err(other),
            }
        }
        match error {
            None => return Ok(()),
            Some(error) if refused.len() == before => return Err(error),
            Some(_) => settings = refused,
        }
    }
}

/// Version 2's own words, controller by controller: (controller, file, value), in the order of the files.
pub(super) fn unified(resources: &LinuxResources) -> Result<Vec<(&str, &str, &str)>, CgroupError> {
    let mut found = Vec::new();
    for (file, value) in resources.unified().iter().flatten() {
        let controller = file.split_once('.').map(|(controller, _)| controller);
        match controller {
            // What begins with "cgroup." is the runtime's own business.
            Some(controller) if !file.contains('/') && !["", "cgroup"].contains(&controller) => {
                found.push((controller, file.as_str(), value.as_str()));
            }
            _ => return Err(CgroupError::BadPath { path: file.into() }),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Writes version 2's own words.
pub(super) fn set_unified(resources: &LinuxResources, directory: &Path) -> Result<(), CgroupError> {
    let setting = |(_, file, value): (&str, &str, &str)| Setting::new("unified", file, value);
    write(unified(resources)?.into_iter().map(setting).collect(), directory)
}

/// Zero is "not set" in the configurations that engines write; a negative limit is none.
fn set(limit: Option<i64>) -> Option<i64> {
    limit.filter(|limit| *limit != 0)
}

/// As version 2 writes a limit.
fn or_max(limit: i64) -> String {
    if limit >= 0 { limit.to_string() } else { "max".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What would be written: `file=value`, the first choice.
    pub(super) fn written(version: Version, resources: Value) -> Result<Vec<String>, String> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let mut lines = Vec::new();
        for wanted in wanted(&resources) {
            let settings = wanted.settings(version, &resources);
            for setting in settings.map_err(|error| error.to_string())? {
                let choice = |(file, value): &(String, String)| format!("{file}={value}");
                lines.push(setting.choices.iter().map(choice).collect::<Vec<_>>().join(" or "));
            }
        }
        Ok(lines)
    }

    #[test]
    fn nothing_is_wanted_where_nothing_is_asked() {
        let nothing = json!({
            "memory": {"limit": 0, "swap": 0, "kernel": 5, "disableOOMKiller": false},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
            "pids": {"limit": 0}, "blockIO": {"weight": 0}, "hugepageLimits": [], "rdma": {},
            "network": {"classID": 0, "priorities": []}, "unified": {},
        });
        assert_eq!(written(Version::One, nothing.clone()), Ok(vec![]));
        assert_eq!(written(Version::Two, nothing), Ok(vec![]));
    }

    #[test]
    fn what_is_refused_is_tried_again_after_the_others_and_then_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("there"), "").unwrap();
        let setting = |file: &str| Setting::new("pids", file, 7);
        write(vec![setting("there"), setting("absent").optional(true)], dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("there")).unwrap(), "7");
        write(vec![setting("absent").or("there", 8)], dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("there")).unwrap(), "8");
        let error = write(vec![setting("absent")], dir.path()).unwrap_err().to_string();
        assert_eq!(error, "linux.resources.pids is not supported by this host's kernel");
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let error = write(vec![setting("folder"), setting("there")], dir.path()).unwrap_err();
        assert!(matches!(error, CgroupError::Limit { field: "pids", .. }), "{error}");
    }

    #[test]
    fn words_of_version_2_name_their_controllers() {
        let of = |name: &str| serde_json::from_value(json!({"unified": {name: "1"}})).unwrap();
        assert_eq!(unified(&of("memory.high")).unwrap(), [("memory", "memory.high", "1")]);
        for bad in ["", "memory", ".x", "cgroup.procs", "../memory.max", "a/b.c"] {
            assert!(unified(&of(bad)).is_err(), "{bad}");
        }
    }
}
