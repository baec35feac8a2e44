//! `isolab bench startup --peers`: the start of the bare machine beside that of other VMMs.
//!
//! No VMM's own marks are used, so that all are measured alike: time runs from the spawn of the
//! VMM to the line that the guest's init writes to the serial console, and to the end of the VMM.
//! Memory and exits come from a second guest, whose init stays after that line. Memory is looked at
//! twice: at that line, and when what only the start needed may have been given back.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use isolab_isolation::timeline;

use super::guest::{self, Afterwards, INIT_LINE};
use super::observe::{self, Before, Memory};
use super::run::Run;
use super::vmm::{Boot, Machine, Peer, Subject};
use super::{MachinesError, OWN};
use crate::report::Findings;
use crate::startup::{TO_EXIT, TO_GONE, TO_GUEST_INIT};
use crate::{leftovers, rounds};

/// What is resident in the VMM beyond guest RAM when the guest's init has spoken.
pub const MEMORY_AT_INIT: &str = "memory_at_init";
/// The part of [`MEMORY_AT_INIT`] that is the process's own and written to; the rest is mostly program
/// text, which processes share.
pub const PRIVATE_AT_INIT: &str = "private_dirty_at_init";
/// What is resident beyond guest RAM a second later, when the guest is idle.
pub const MEMORY_OVERHEAD: &str = "memory_overhead";
/// The part of [`MEMORY_OVERHEAD`] that is the process's own and written to.
pub const PRIVATE_OVERHEAD: &str = "private_dirty_overhead";
/// How often the guest left for the host's kernel until its init ran, by KVM's own count.
pub const EXITS: &str = "exits";

/// From the guest's init to the second look at the VMM's memory: what it keeps, not what its start
/// took.
const SETTLING: Duration = Duration::from_secs(1);

/// Which machines start what.
pub struct MachinesPlan {
    /// The `isolab` whose `vm run` is the subject `vmm`.
    pub program: PathBuf,
    /// Others; those that are not installed are left out.
    pub peers: Vec<Peer>,
    /// Counted rounds.
    pub runs: u32,
    /// An uncompressed vmlinux.
    pub kernel: PathBuf,
    /// The same kernel as a bzImage, for VMMs that take no vmlinux.
    pub bzimage: Option<PathBuf>,
    /// Guest RAM in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// vCPUs of every machine.
    pub cpus: u32,
}

/// Runs the plan. `progress` hears of every round.
///
/// # Errors
/// [`MachinesError`] at the first run that fails.
pub fn measure(plan: &MachinesPlan, progress: impl FnMut(u32)) -> Result<Findings, MachinesError> {
    let own = "the guest's files of";
    let host = |source| MachinesError::Host { action: "write", subject: own, source };
    let folder = tempfile::tempdir().map_err(host)?;
    let [ending, staying] = [Afterwards::End, Afterwards::Stay].map(|afterwards| {
        let path = folder.path().join(afterwards.file_name());
        std::fs::write(&path, guest::initramfs(afterwards)?).map(|()| path)
    });
    let (ending, staying) = (ending.map_err(host)?, staying.map_err(host)?);

    let mut notes = Vec::new();
    let mut subjects = vec![Subject::own(OWN, Machine::OwnVirtio, &plan.program)];
    for &peer in &plan.peers {
        match Subject::peer(name(peer), peer.lightest(), plan.bzimage.as_deref()) {
            Ok(subject) => subjects.push(subject),
            Err(why) => notes.push(format!("{peer} is left out: {why}")),
        }
    }
    let boot = |initrd: &Path| Boot {
        kernel: plan.kernel.clone(),
        bzimage: plan.bzimage.clone(),
        initrd: initrd.to_owned(),
        memory: plan.memory,
        cpus: plan.cpus,
        scratch: folder.path().to_owned(),
        device: None,
    };
    let (ending, staying) = (boot(&ending), boot(&staying));

    leftovers::adopt();
    let turn = |subject: &Subject, round| {
        let mut figures = time(subject, &ending)?;
        if round > 0 {
            figures.extend(observe(subject, &staying)?);
            leftovers::wait();
        }
        Ok::<_, MachinesError>(
            figures.into_iter().map(|(metric, value)| (metric, unit_of(metric), value)),
        )
    };
    let results = rounds::measure(plan.runs, &subjects, |subject| subject.name, progress, turn)?;
    if !results.iter().any(|it| it.metric == EXITS) {
        notes.push(format!("exits are left out: {}", observe::EXITS_NEED));
    }
    Ok(Findings { results, notes })
}

/// A peer in reports: with the machine where it has several.
fn name(peer: Peer) -> &'static str {
    match peer {
        Peer::Qemu => "qemu-microvm",
        other => other.name(),
    }
}

fn unit_of(metric: &str) -> &'static str {
    match metric {
        MEMORY_AT_INIT | PRIVATE_AT_INIT | MEMORY_OVERHEAD | PRIVATE_OVERHEAD => "KiB",
        EXITS => "count",
        _ => "ms",
    }
}

fn time(subject: &Subject, boot: &Boot) -> Result<Vec<(&'static str, f64)>, MachinesError> {
    let spawned = timeline::now();
    let mut run = Run::start(subject, boot, Stdio::null())?;
    let init = run.wait_for(INIT_LINE)?;
    run.wait_for_end()?;
    let exited = timeline::now();
    let gone = leftovers::wait();
    let milliseconds = |until: u64| (until as f64 - spawned as f64) / 1e6;
    let figures = [(TO_GUEST_INIT, Some(init)), (TO_EXIT, Some(exited)), (TO_GONE, gone)];
    let reached = figures.into_iter().filter_map(|(metric, time)| Some((metric, time?)));
    Ok(reached.map(|(metric, time)| (metric, milliseconds(time))).collect())
}

fn observe(subject: &Subject, boot: &Boot) -> Result<Vec<(&'static str, f64)>, MachinesError> {
    let before = Before::now();
    let mut run = Run::start(subject, boot, Stdio::null())?;
    run.wait_for(INIT_LINE)?;
    let exits = before.machine().and_then(|machine| machine.exits());
    let at_init = memory_of(&run, subject, boot)?;
    thread::sleep(SETTLING);
    let settled = memory_of(&run, subject, boot)?;
    let memory = [
        (MEMORY_AT_INIT, at_init.resident),
        (PRIVATE_AT_INIT, at_init.private_dirty),
        (MEMORY_OVERHEAD, settled.resident),
        (PRIVATE_OVERHEAD, settled.private_dirty),
    ];
    let memory = memory.map(|(metric, bytes)| (metric, bytes as f64 / 1024.0));
    Ok(memory.into_iter().chain(exits.map(|count| (EXITS, count.all as f64))).collect())
}

fn memory_of(run: &Run, subject: &Subject, boot: &Boot) -> Result<Memory, MachinesError> {
    let beyond = Memory::beyond_ram(run.pid(), boot.memory);
    let beyond = beyond.map_err(|source| MachinesError::Host {
        action: "read the mappings of",
        subject: subject.name,
        source,
    })?;
    beyond.ok_or(MachinesError::NoRam { subject: subject.name })
}
