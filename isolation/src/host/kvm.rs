//! KVM: its API, its capabilities, and whether a guest kernel would run.

use isolab_vmm::probe::{self, Report};

use super::Fact;

/// What is the matter with this host's KVM, if anything.
#[derive(Clone, Debug)]
pub enum KvmState {
    /// It runs guests.
    Works,
    /// It cannot be opened or set up.
    Unusable(String),
    /// It opens but cannot run an ordinary guest kernel.
    Unfaithful(String),
}

impl KvmState {
    /// Why the VM levels cannot be used, and the hint.
    pub fn fault(&self) -> Option<(String, String)> {
        match self {
            KvmState::Works => None,
            KvmState::Unusable(why) => Some((why.clone(), probe::HINT.to_owned())),
            KvmState::Unfaithful(why) => {
                Some((format!("/dev/kvm cannot run a guest kernel: {why}"), probe::HINT.to_owned()))
            }
        }
    }
}

pub(super) fn inspect() -> (KvmState, Vec<Fact>) {
    let kvm = match probe::open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => {
            let why = error_reporter::Report::new(&error).to_string();
            return (KvmState::Unusable(why.clone()), vec![Fact::new("kvm", Err(why))]);
        }
    };
    let mut facts = vec![Fact::new("kvm", Ok("/dev/kvm opens, API version 12".to_owned()))];
    let missing: Vec<&str> = probe::capabilities(&kvm)
        .into_iter()
        .filter_map(|(name, there)| (!there).then_some(name))
        .collect();
    let capabilities = if missing.is_empty() {
        Ok("all that isolab uses".to_owned())
    } else {
        Err(format!("missing {}", missing.join(", ")))
    };
    facts.push(Fact::new("kvm capabilities", capabilities.clone()));
    let state = match probe::probe(&kvm) {
        Err(error) => {
            facts.push(Fact::new(
                "kvm probe guest",
                Err(error_reporter::Report::new(&error).to_string()),
            ));
            KvmState::Unusable(error_reporter::Report::new(&error).to_string())
        }
        Ok(report) => {
            facts.extend(steps(&report));
            match (report.fault(), capabilities) {
                (Some(fault), _) => KvmState::Unfaithful(fault),
                (None, Err(missing)) => KvmState::Unusable(format!("KVM capabilities {missing}")),
                (None, Ok(_)) => KvmState::Works,
            }
        }
    };
    (state, facts)
}

/// One fact a step of the probe guest.
fn steps(report: &Report) -> Vec<Fact> {
    let stopped = report.stopped_by.as_deref().unwrap_or("it was not reached");
    let step = |name: &str, works: bool, meaning: &str| {
        let result = if works { Ok(meaning.to_owned()) } else { Err(stopped.to_owned()) };
        Fact::new(name, result)
    };
    let speed = match report.kernel_mode_mips {
        Some(mips) if report.kernel_mode_is_interpreted() => {
            Err(format!("{mips:.1} MIPS: interpreted"))
        }
        Some(mips) => Ok(format!("{mips:.0} MIPS")),
        None => Err(stopped.to_owned()),
    };
    vec![
        Fact::new("kvm kernel-mode speed", speed),
        step("kvm xsave", report.xsave, "saves and restores in kernel mode"),
        step("kvm syscall", report.syscall, "enters kernel mode"),
        step("kvm int", report.interrupt, "enters kernel mode"),
    ]
}
