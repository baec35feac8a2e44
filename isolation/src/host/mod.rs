//! What this host can do, found by trying, and which levels that makes ready.

mod cgroups;
mod kernel_features;
mod kvm;
mod levels;
mod rootless;
mod tools;

use std::path::Path;

use error_reporter::Report;
use isolab_guest::kernels;
use serde::Serialize;

use crate::instances::Instances;
use crate::level::Level;
use crate::upper;
pub use kvm::KvmState;

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What was tried, for example `namespace pid`.
    pub name: String,
    /// Whether the host has it, and it works.
    pub ok: bool,
    /// What was found, in a few words.
    pub found: String,
}

impl Fact {
    fn new(name: impl Into<String>, result: Result<String, String>) -> Self {
        let (ok, found) = match result {
            Ok(found) => (true, found),
            Err(found) => (false, found),
        };
        Self { name: name.into(), ok, found }
    }
}

/// Whether a level can be used on this host.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The level that was tried.
    pub level: Level,
    /// Whether everything it needs is there.
    pub ready: bool,
    /// What is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What the operator can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What a level that is ready cannot do here, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
}

impl Verdict {
    fn new(level: Level, missing: Option<(String, String)>) -> Self {
        let ready = missing.is_none();
        let (why, hint) = missing.unzip();
        Self { level, ready, why, hint, without: None }
    }
}

/// Everything [`inspect`] found.
#[derive(Clone, Debug, Serialize)]
pub struct HostReport {
    /// In the order they were tried.
    pub facts: Vec<Fact>,
    /// One for each level, the least isolated first.
    pub levels: Vec<Verdict>,
}

impl HostReport {
    /// Whether every level is ready.
    pub fn all_ready(&self) -> bool {
        self.levels.iter().all(|verdict| verdict.ready)
    }
}

/// Tries everything, what takes files in the folder of the instances. Takes at most about three
/// seconds, which is the probe guest's time limit.
pub fn inspect() -> HostReport {
    inspect_in(&isolab_images::data_dir().join("instances"))
}

fn inspect_in(instances: &Path) -> HostReport {
    let (kvm, mut facts) = kvm::inspect();
    let guest_kernel = kernels::find(None, &["slim", "stock", "cloud"]);
    facts.push(Fact::new(
        "guest kernel",
        match &guest_kernel {
            Ok(kernel) => Ok(format!("{} ({})", kernel.name, kernel.image.display())),
            Err(error) => Err(Report::new(&error).to_string()),
        },
    ));
    let cgroups = cgroups::inspect();
    facts.extend(cgroups.iter().cloned());
    let namespaces = kernel_features::namespaces();
    facts.extend(namespaces.iter().cloned());
    let id_ranges = rootless::id_ranges();
    let (id_ranges, without_users) = id_ranges.unzip();
    facts.extend(id_ranges);
    let folder = Instances::open(instances)
        .and_then(|all| all.create(None, Level::Container))
        .and_then(|folder| upper::check(folder.shared()).map(|()| folder));
    let native = match folder {
        Ok(folder) => {
            let tried = levels::try_in(folder.path());
            let mut container = Verdict::new(
                Level::Container,
                // What it is made of says more about a failure than the failure itself.
                fault_of(&tried.container, &namespaces),
            );
            if container.ready {
                let limits = (!tried.limits.ok).then(|| format!("limits: {}", tried.limits.found));
                let without = [limits, without_users.flatten()].into_iter().flatten();
                let without = without.collect::<Vec<_>>().join("; and without ");
                container.without = Some(without).filter(|without| !without.is_empty());
            }
            let process = Verdict::new(Level::Process, fault_of(&tried.process, []));
            facts.push(kernel_features::overlayfs(folder.path()));
            facts.extend([tried.process, tried.container, tried.limits]);
            if let Err(error) = folder.remove() {
                facts.push(Fact::new("data folder", Err(Report::new(&error).to_string())));
            }
            [process, container]
        }
        Err(error) => {
            facts.push(Fact::new("data folder", Err(Report::new(&error).to_string())));
            [Level::Process, Level::Container].map(|level| {
                let hint = "XDG_DATA_HOME names another data folder".to_owned();
                Verdict::new(level, Some((Report::new(&error).to_string(), hint)))
            })
        }
    };
    facts.push(kernel_features::tun());
    facts.extend(tools::inspect());

    let no_kernel = guest_kernel
        .err()
        .map(|error| (Report::new(&error).to_string(), "run `isolab kernel fetch`".to_owned()));
    let machine = kvm.fault().or(no_kernel).or_else(tools::no_disks);
    let mut levels = Vec::from(native);
    levels.push(Verdict::new(Level::Paravirt, machine.clone()));
    levels.push(Verdict::new(Level::Fullvirt, machine));
    HostReport { facts, levels }
}

/// Whether KVM alone works: what `scripts/kvm-host` asks.
///
/// # Errors
/// Why not, in one sentence, with the hint.
pub fn require_kvm() -> Result<(), String> {
    match kvm::inspect().0.fault() {
        None => Ok(()),
        Some((why, hint)) => Err(format!("{why}; {hint}")),
    }
}

/// Why a level that was tried is not ready.
fn fault_of<'a>(
    tried: &'a Fact,
    parts: impl IntoIterator<Item = &'a Fact>,
) -> Option<(String, String)> {
    if tried.ok { None } else { first_fault(parts.into_iter().chain([tried])) }
}

fn first_fault<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Option<(String, String)> {
    let fact = facts.into_iter().find(|fact| !fact.ok)?;
    let hint = if nix::unistd::geteuid().is_root() {
        "it takes a kernel and a sandbox that allow it"
    } else {
        "run as root"
    };
    Some((format!("{}: {}", fact.name, fact.found), hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_the_one_told() {
        let fact = |name: &str, ok| Fact { name: name.to_owned(), ok, found: "x".to_owned() };
        let facts = [fact("a", true), fact("b", false), fact("c", false)];
        assert_eq!(first_fault(&facts).unwrap().0, "b: x");
        assert!(first_fault(&facts[..1]).is_none());
    }

    #[test]
    fn every_level_gets_a_verdict_with_a_mend_where_it_is_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let report = inspect_in(dir.path());
        assert_eq!(report.levels.iter().map(|v| v.level).collect::<Vec<_>>(), Level::ALL);
        for verdict in report.levels {
            assert_eq!(verdict.ready, verdict.why.is_none());
            assert_eq!(verdict.ready, verdict.hint.is_none());
            assert!(verdict.ready || verdict.without.is_none());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_level_that_was_made_is_ready_whatever_its_parts_say() {
        let fact = |name: &str, ok| Fact { name: name.to_owned(), ok, found: "x".to_owned() };
        let (made, failed) = (fact("a container", true), fact("a container", false));
        assert!(fault_of(&made, [&fact("part", false)]).is_none());
        assert_eq!(fault_of(&failed, [&fact("part", false)]).unwrap().0, "part: x");
        assert_eq!(fault_of(&failed, [&fact("part", true)]).unwrap().0, "a container: x");
    }
}
