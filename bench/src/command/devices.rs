//! `isolab bench disk` and `isolab bench net`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use isolab_bench::Host;
use isolab_bench::report::{Findings, Report};
use isolab_bench::runner::{Rounds, Runner};
use isolab_bench::subjects::Peer;
use isolab_bench::workloads::disk::levels as levels_disk;
use isolab_bench::workloads::disk::machines::{self as disk, CacheMode, EngineKind};
use isolab_bench::workloads::jobs;
use isolab_bench::workloads::jobs::guests::{GuestJobs, Setup};
use isolab_bench::workloads::net::{levels as levels_net, machines as net};
use isolab_command::format::parse_size;
use isolab_guest::package;
use isolab_isolation::{Level, guest_kernel};

use super::instances::{self, DiskWork, Instances};
use super::levels::Levels;
use super::running::Output;
use super::{duplicate, own_program, remarks_of};

/// What is said of --isolation.
const ISOLATION: &str =
    "Levels, separated by commas; by default all of them, where no peers or subjects are named";
/// What is said of --kernel.
const KERNEL: &str = "Guest kernel: slim, stock, cloud, or a file; by default the first of these that exists. A bare \
    machine's drivers must be built in";

/// Options of both `disk` and `net`.
#[derive(Debug, Args)]
#[command(
    mut_arg("isolation", |it| it.conflicts_with_all(["peers", "only"]).help(ISOLATION)),
    mut_arg("kernel", |it| it.help(KERNEL)),
    mut_arg("memory", |it| it.default_value("512M"))
)]
struct Common {
    #[command(flatten)]
    levels: Levels,
    /// Bare machines instead, ours and those of these VMMs, separated by commas; those that are not installed are left
    /// out.
    #[arg(long, value_name = "VMM,...", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Bare machines, but only these, separated by commas.
    #[arg(long, value_name = "SUBJECT,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these jobs, separated by commas; by default all.
    #[arg(long, value_name = "JOB,...", value_delimiter = ',')]
    jobs: Vec<String>,
    /// Rounds, in each of which every machine has its turn.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Let each job run that long instead of doing a fixed amount of work.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    time: Option<Duration>,
    /// vCPUs of every guest of a bare machine.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "isolation",
        value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// How long our virtio devices' threads look for work before they sleep, where that pays, as `poll=` of `isolab vm
    /// run`. An emulated host is some ten times slower than the time it is meant for.
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "isolation",
        value_parser = clap::value_parser!(u16).range(..=10_000))]
    poll: Option<u16>,
    #[command(flatten)]
    output: Output,
}

/// fio at every level, or in guests of bare machines: ours and QEMU's.
///
/// At the levels it runs in one instance of each, by `isolab exec`, on a file of the root and on one of a volume (a folder,
/// which is virtio-fs at paravirt; a disk at fullvirt). With --peers or --only, each subject is a machine with
/// the same kernel, initramfs, memory and back end, over one disk. All have their turn in each round. Beside each
/// figure is what a request costs the host: CPU time, system calls, context switches, exits by KVM's count, interrupts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench disk --isolation process,container --out results\n  \
    isolab bench disk --peers qemu --requests 200000\n  \
    scripts/kvm-host run --icount -- isolab bench disk --peers qemu --runs 3\n\n\
    Subjects of --only: vmm-virtio, vmm-emulated; with --peers qemu: qemu-microvm (virtio over MMIO),\n\
    qemu-q35 (virtio over PCI), qemu-pc-ide.")]
pub struct DiskBench {
    #[command(flatten)]
    common: Common,
    /// Requests of each job. The default suits an emulated host; where a disk does hundreds of
    /// thousands a second, take more.
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "time",
        value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// A raw file or block device for bare machines to work on, WHOSE CONTENT IS LOST; by default a file in
    /// /var/tmp.
    #[arg(long, value_name = "FILE", conflicts_with = "isolation")]
    disk: Option<PathBuf>,
    /// Size of that file.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    size: u64,
    /// The host's page cache: none (O_DIRECT), writeback or writethrough. At the levels: whether fio's requests pass the
    /// page cache by (none) or go through it (writeback).
    #[arg(long, value_enum, default_value_t = Cache::None)]
    cache: Cache,
    /// How a bare machine's requests reach the host's kernel. QEMU's equal of sync is aio=threads.
    #[arg(long, value_enum, default_value_t = Engine::IoUring)]
    engine: Engine,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cache {
    None,
    Writeback,
    Writethrough,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Engine {
    #[value(name = "io_uring")]
    IoUring,
    Sync,
}

/// Streams, round trips and connections at every level, or of bare machines: ours and QEMU's.
///
/// At the levels an instance of each is on a network of isolab's, with the host and with a second instance of its level:
/// iperf3 both ways, requests with answers of 64 bytes to 64 KiB, connections. With --peers or --only, each subject is a
/// machine on one tap with the host: iperf3 both ways and requests with answers of 64 bytes (tcp_send is guest to host). All have
/// their turn in each round. Beside each figure is what a MiB or round trip costs the host.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench net --isolation container,paravirt --out results\n  \
    isolab bench net --peers qemu --time 5\n  \
    scripts/kvm-host run -- isolab bench net --peers qemu --runs 3\n\n\
    Subjects of --only: vmm-virtio, vmm-virtio-vhost, vmm-e1000; with --peers qemu: qemu-microvm, qemu-q35,\n\
    qemu-q35-vhost, qemu-pc-e1000.")]
pub struct NetBench {
    #[command(flatten)]
    common: Common,
    /// MiB of each stream. The default suits an emulated host; take more on a quick one.
    #[arg(long, value_name = "N", default_value_t = 32, conflicts_with = "time",
        value_parser = clap::value_parser!(u32).range(1..))]
    mebibytes: u32,
    /// Requests with their answers, and connections.
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "time",
        value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
}

/// Runs `isolab bench disk`.
///
/// # Errors
/// What the operator should read.
pub fn disk(args: DiskBench) -> Result<ExitCode> {
    if args.common.is_of_levels() {
        if args.disk.is_some() {
            bail!("--disk is for bare machines: name some with --peers or --only");
        }
        let work = DiskWork {
            size: args.size,
            requests: args.requests,
            time: args.common.time,
            direct: match args.cache {
                Cache::None => true,
                Cache::Writeback => false,
                Cache::Writethrough => bail!("no level has its page cache written through"),
            },
        };
        let jobs = levels_disk::jobs();
        return args.common.run("disk", jobs, |it, runner| instances::disk(it, &work, runner));
    }
    let (setup, kernel) = setup(&args.common, &disk::subjects(), &disk::jobs())?;
    let plan = disk::DiskPlan {
        setup,
        requests: args.requests,
        disk: args.disk,
        size: args.size,
        cache: match args.cache {
            Cache::None => CacheMode::None,
            Cache::Writeback => CacheMode::Writeback,
            Cache::Writethrough => CacheMode::Writethrough,
        },
        engine: match args.engine {
            Engine::IoUring => EngineKind::IoUring,
            Engine::Sync => EngineKind::Sync,
        },
    };
    Machines::disk().report(&args.common, kernel, disk::workload(&plan)?)
}

/// Runs `isolab bench net`.
///
/// # Errors
/// What the operator should read.
pub fn net(args: NetBench) -> Result<ExitCode> {
    if args.common.is_of_levels() {
        if args.common.time.is_some() {
            bail!("--time is for bare machines: name some with --peers or --only");
        }
        return args.common.run("net", levels_net::jobs(), |it, runner| {
            instances::net(it, args.mebibytes, args.requests, runner)
        });
    }
    let (setup, kernel) = setup(&args.common, &net::subjects(), &net::jobs())?;
    let plan = net::NetPlan {
        setup,
        probe: package::executable("isolab-probe")?,
        mebibytes: args.mebibytes,
        requests: args.requests,
    };
    Machines::net().report(&args.common, kernel, net::workload(&plan)?)
}

impl Common {
    fn is_of_levels(&self) -> bool {
        self.peers.is_empty() && self.only.is_empty()
    }

    /// Runs a benchmark of the levels, and prints and writes the report.
    fn run(
        &self,
        name: &'static str,
        jobs: Vec<String>,
        measure: impl FnOnce(Instances, &mut Runner) -> Result<Findings>,
    ) -> Result<ExitCode> {
        known("job", &self.jobs, &jobs)?;
        if self.cpus != 1 || self.poll.is_some() {
            bail!("--cpus and --poll are for bare machines: name some with --peers or --only");
        }
        let (subjects, kernel) = self.levels.subjects(false)?;
        let has_guests = kernel.is_some();
        let mut session = self.output.begin(name, Rounds::Fixed(self.runs))?;
        let instances = Instances { subjects, memory: self.levels.memory, jobs: self.jobs.clone() };
        let mut findings = measure(instances, &mut session.runner)?;
        if has_guests {
            findings.notes.extend(jobs::without_exits(&findings));
        }
        let report = session.report(Host::detect(None, kernel), findings);
        let table = instances::table(&report, name);
        let text = format!("{}\n\n{table}{}", report.host, remarks_of(&report));
        session.finish(&report, &text, &self.output)
    }
}

/// Refuses what there is not.
fn known(kind: &str, chosen: &[String], all: &[impl AsRef<str>]) -> Result<()> {
    let names: Vec<&str> = all.iter().map(AsRef::as_ref).collect();
    match chosen.iter().find(|name| !names.contains(&name.as_str())) {
        Some(unknown) => bail!("unknown {kind} `{unknown}`; there are {}", names.join(", ")),
        None => Ok(()),
    }
}

fn setup(common: &Common, subjects: &[&str], jobs: &[&str]) -> Result<(Setup, String)> {
    if let Some(twice) = duplicate(&common.peers) {
        bail!("{twice} is named twice");
    }
    if let Some(peer) = common.peers.iter().find(|peer| peer.lightest().is_none()) {
        bail!("{peer} has no machines");
    }
    known("subject", &common.only, subjects)?;
    known("job", &common.jobs, jobs)?;
    let kernel = guest_kernel(Level::Paravirt, common.levels.kernel())?;
    let name = kernel.to_string();
    let setup = Setup {
        program: own_program()?,
        peers: common.peers.clone(),
        only: common.only.clone(),
        jobs: common.jobs.clone(),
        time: common.time,
        kernel: kernel.image,
        memory: common.levels.memory,
        cpus: common.cpus,
        poll: common.poll,
    };
    Ok((setup, name))
}

/// The part of either benchmark that is of bare machines.
pub struct Machines {
    /// What the operator calls it.
    name: &'static str,
    /// What a report calls it.
    benchmark: &'static str,
    jobs: Vec<&'static str>,
    subjects: Vec<&'static str>,
    /// Ours: emulated and paravirtual.
    pair: (&'static str, &'static str),
}

impl Machines {
    /// Of `bench disk`.
    pub fn disk() -> Self {
        Self {
            name: "disk",
            benchmark: disk::NAME,
            jobs: disk::jobs(),
            subjects: disk::subjects(),
            pair: (disk::EMULATED, disk::VIRTIO),
        }
    }

    /// Of `bench net`.
    pub fn net() -> Self {
        Self {
            name: "net",
            benchmark: net::NAME,
            jobs: net::jobs(),
            subjects: net::subjects(),
            pair: (net::EMULATED, net::VIRTIO),
        }
    }

    /// Measures them beside `peers`, a first look where it has to be `quick`.
    ///
    /// # Errors
    /// What the guests need is not here, or a measurement cannot be written down.
    pub fn measure(&self, peers: &[Peer], of: &Guests, runner: &mut Runner) -> Result<Findings> {
        let jobs = |quick: &[&str]| match of.quick {
            true => quick.iter().map(|&job| job.to_owned()).collect(),
            false => Vec::new(),
        };
        let setup = |quick: &[&str]| -> Result<Setup> {
            Ok(Setup {
                program: own_program()?,
                peers: peers.to_vec(),
                only: Vec::new(),
                jobs: jobs(quick),
                time: None,
                kernel: guest_kernel(Level::Paravirt, of.kernel)?.image,
                memory: of.memory,
                cpus: 1,
                poll: None,
            })
        };
        let requests = if of.quick { 200 } else { 1000 };
        let made = match self.benchmark {
            disk::NAME => disk::workload(&disk::DiskPlan {
                setup: setup(&disk::QUICK)?,
                requests,
                disk: None,
                size: 64 << 20,
                cache: CacheMode::None,
                engine: EngineKind::IoUring,
            })?,
            _ => net::workload(&net::NetPlan {
                setup: setup(&net::QUICK)?,
                probe: package::executable("isolab-probe")?,
                mebibytes: if of.quick { 4 } else { 32 },
                requests,
            })?,
        };
        Self::run(made, runner)
    }

    fn run(
        (mut workload, notes): (GuestJobs, Vec<String>),
        runner: &mut Runner,
    ) -> Result<Findings> {
        let mut findings = runner.run(&mut workload)?;
        // The guests' files, tap and server.
        drop(workload);
        findings.notes.extend(notes);
        findings.notes.extend(jobs::without_exits(&findings));
        Ok(findings)
    }

    /// Whether it is this one of a report's.
    pub fn is(&self, benchmark: &str) -> bool {
        self.benchmark == benchmark
    }

    /// What is slower than it might be, and why: remarks of a report.
    pub fn causes(&self, report: &Report) -> Vec<String> {
        jobs::causes(report, &self.jobs, self.pair.0, self.pair.1)
    }

    /// The table, and what its figures are.
    pub fn table(&self, report: &Report) -> String {
        let table = jobs::table(report, self.benchmark, &self.jobs, &self.subjects);
        format!(
            "{}: medians; costs of the host for each piece of work; ratios of throughput\n{table}\n",
            self.benchmark
        )
    }

    fn report(
        &self,
        common: &Common,
        kernel: String,
        made: (GuestJobs, Vec<String>),
    ) -> Result<ExitCode> {
        let mut session = common.output.begin(self.name, Rounds::Fixed(common.runs))?;
        let findings = Self::run(made, &mut session.runner)?;
        let mut report = session.report(Host::detect(None, Some(kernel)), findings);
        report.notes.extend(self.causes(&report));
        let table = self.table(&report);
        let text = format!("{}\n\n{table}{}", report.host, remarks_of(&report));
        session.finish(&report, &text, &common.output)
    }
}

/// The guests of bare machines.
pub struct Guests<'a> {
    /// None: the default.
    pub kernel: Option<&'a str>,
    /// In bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// Whether few jobs do.
    pub quick: bool,
}

/// `0.5`: between a tenth of a second and an hour.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if !(0.1..=3600.0).contains(&seconds) {
        return Err(format!("{text} s is out of range: 0.1 to 3600"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_within_reason() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "0", "-1", "nan", "inf", "1e9", "2s"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
