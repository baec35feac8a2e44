//! `isolab bench startup --peers`: the start of the bare machine beside that of other VMMs.
//!
//! No VMM's own marks are used, so that all are measured alike: time runs from the spawn of the
//! VMM to the line that the guest's init writes to the serial console, and to the end of the VMM.
//! Memory and exits come from a second guest, whose init stays after that line. Memory is looked at
//! twice: at that line, and when what only the start needed may have been given back.

use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use isolab_isolation::timeline;
use tempfile::TempDir;

use super::startup::{TO_EXIT, TO_GONE, TO_GUEST_INIT};
use crate::leftovers;
use crate::machines::guest::{self, Afterwards, INIT_LINE};
use crate::machines::observe::{Before, Memory};
use crate::machines::run::Run;
use crate::machines::{MachinesError, OWN};
use crate::runner::{Figure, Workload};
use crate::subjects::MachineSubject;
use crate::subjects::machine::Boot;
use crate::subjects::{Peer, own};

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
    /// Others; those that are not installed, and those that are no VMMs, are left out.
    pub peers: Vec<Peer>,
    /// An uncompressed vmlinux.
    pub kernel: PathBuf,
    /// The same kernel as a bzImage, for VMMs that take no vmlinux.
    pub bzimage: Option<PathBuf>,
    /// Guest RAM in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// vCPUs of every machine.
    pub cpus: u32,
}

/// The start of a machine, once a turn, and another to look at.
pub struct Machines {
    subjects: Vec<MachineSubject>,
    ending: Boot,
    staying: Boot,
    _folder: TempDir,
}

impl Machines {
    /// Of this plan, and a note for each peer that is left out.
    ///
    /// # Errors
    /// The guests' files cannot be written.
    pub fn new(plan: &MachinesPlan) -> Result<(Self, Vec<String>), MachinesError> {
        let own = "the guest's files of";
        let host = |source| MachinesError::Host { action: "write", subject: own, source };
        let folder = tempfile::tempdir().map_err(host)?;
        let [ending, staying] = [Afterwards::End, Afterwards::Stay].map(|afterwards| {
            let path = folder.path().join(afterwards.file_name());
            std::fs::write(&path, guest::initramfs(afterwards)?).map(|()| path)
        });
        let mut notes = Vec::new();
        let mut subjects = vec![MachineSubject::own(OWN, &own::VIRTIO, &plan.program)];
        for &peer in &plan.peers {
            let Some(machine) = peer.lightest() else { continue };
            match MachineSubject::peer(machine.name, machine, peer, plan.bzimage.as_deref()) {
                Ok(subject) => subjects.push(subject),
                Err(why) => notes.push(format!("{peer} is left out: {why}")),
            }
        }
        let boot = |initrd: PathBuf| Boot {
            kernel: plan.kernel.clone(),
            bzimage: plan.bzimage.clone(),
            initrd,
            memory: plan.memory,
            cpus: plan.cpus,
            scratch: folder.path().to_owned(),
            device: None,
            poll: None,
        };
        let (ending, staying) = (boot(ending.map_err(host)?), boot(staying.map_err(host)?));
        leftovers::adopt();
        Ok((Self { subjects, ending, staying, _folder: folder }, notes))
    }
}

impl Workload for Machines {
    type Error = MachinesError;

    fn name(&self) -> &'static str {
        "machines"
    }

    fn subjects(&self) -> Vec<String> {
        self.subjects.iter().map(|subject| subject.name.to_owned()).collect()
    }

    fn turn(&mut self, subject: usize, round: u32) -> Result<Vec<Figure>, MachinesError> {
        let subject = &self.subjects[subject];
        let mut figures = time(subject, &self.ending)?;
        if round > 0 {
            figures.extend(observe(subject, &self.staying)?);
            leftovers::wait();
        }
        let figures = figures.into_iter();
        Ok(figures.map(|(metric, value)| Figure::new(metric, unit_of(metric), value)).collect())
    }
}

fn unit_of(metric: &str) -> &'static str {
    match metric {
        MEMORY_AT_INIT | PRIVATE_AT_INIT | MEMORY_OVERHEAD | PRIVATE_OVERHEAD => "KiB",
        EXITS => "count",
        _ => "ms",
    }
}

fn time(subject: &MachineSubject, boot: &Boot) -> Result<Vec<(&'static str, f64)>, MachinesError> {
    leftovers::rest();
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

fn observe(
    subject: &MachineSubject,
    boot: &Boot,
) -> Result<Vec<(&'static str, f64)>, MachinesError> {
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

fn memory_of(run: &Run, subject: &MachineSubject, boot: &Boot) -> Result<Memory, MachinesError> {
    let beyond = Memory::beyond_ram(run.pid(), boot.memory);
    let beyond = beyond.map_err(|source| MachinesError::Host {
        action: "read the mappings of",
        subject: subject.name,
        source,
    })?;
    beyond.ok_or(MachinesError::NoRam { subject: subject.name })
}
