//! `isolab bench disk` and `isolab bench net`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use isolab_bench::Host;
use isolab_bench::runner::Rounds;
use isolab_bench::subjects::Peer;
use isolab_bench::workloads::disk::{self, CacheMode, EngineKind};
use isolab_bench::workloads::guest_jobs::{self, GuestJobs, Setup};
use isolab_bench::workloads::net;
use isolab_command::format::parse_size;
use isolab_isolation::{Level, guest_kernel};

use super::running::Output;
use super::{duplicate, own_program, remarks_of};

/// Options of both `disk` and `net`.
#[derive(Debug, Args)]
struct Common {
    /// Other VMMs, separated by commas; those that are not installed are left out.
    #[arg(long, value_name = "VMM,...", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Only these subjects, separated by commas; by default all.
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
    /// Guest kernel: slim, stock, cloud, or a file; by default the first of these that exists.
    /// Its drivers must be built in.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Memory of every guest.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    memory: u64,
    #[command(flatten)]
    output: Output,
}

/// fio in the guest: virtio-blk and IDE, ours and QEMU's, over one disk.
///
/// Each subject is a machine of one vCPU with the same kernel, initramfs, memory and back end;
/// they are measured in turn, A B C A B C. Exits are KVM's count of all exits while fio ran,
/// interrupts are those of the disk, both for each request.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench disk --peers qemu\n  \
    isolab bench disk --peers qemu --requests 200000\n  \
    scripts/kvm-host run --icount -- isolab bench disk --peers qemu --runs 3\n\n\
    Subjects: vmm-virtio, vmm-emulated; with --peers qemu: qemu-microvm (virtio over MMIO),\n\
    qemu-q35 (virtio over PCI), qemu-pc-ide.")]
pub struct DiskBench {
    #[command(flatten)]
    common: Common,
    /// Requests of each job. The default suits an emulated host; where a disk does hundreds of
    /// thousands a second, take more.
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "time",
        value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// A raw file or block device to work on, WHOSE CONTENT IS LOST; by default a file in
    /// /var/tmp.
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// Size of that file.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    size: u64,
    /// The host's page cache: none (O_DIRECT), writeback or writethrough.
    #[arg(long, value_enum, default_value_t = Cache::None)]
    cache: Cache,
    /// How requests reach the host's kernel. QEMU's equal of sync is aio=threads.
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

/// iperf3 both ways and ping between host and guest: virtio-net and e1000, ours and QEMU's.
///
/// Each subject is a machine of one vCPU with the same kernel, initramfs and memory on one tap;
/// they are measured in turn, A B C A B C. tcp_send is guest to host. Exits are KVM's count of
/// all exits while the program ran, interrupts are those of the network card, both for each MiB or
/// round trip.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench net --peers qemu\n  \
    isolab bench net --peers qemu --time 5\n  \
    scripts/kvm-host run -- isolab bench net --peers qemu --runs 3\n\n\
    Subjects: vmm-virtio, vmm-virtio-vhost, vmm-e1000; with --peers qemu: qemu-microvm, qemu-q35,\n\
    qemu-q35-vhost, qemu-pc-e1000.")]
pub struct NetBench {
    #[command(flatten)]
    common: Common,
    /// MiB of each stream. The default suits an emulated host; take more on a quick one.
    #[arg(long, value_name = "N", default_value_t = 32, conflicts_with = "time",
        value_parser = clap::value_parser!(u32).range(1..))]
    mebibytes: u32,
    /// Round trips.
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "time",
        value_parser = clap::value_parser!(u32).range(1..))]
    pings: u32,
}

/// Runs `isolab bench disk`.
///
/// # Errors
/// What the operator should read.
pub fn disk(args: DiskBench) -> Result<ExitCode> {
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
    let show = Shown {
        name: "disk",
        jobs: disk::jobs(),
        subjects: disk::subjects(),
        pair: (disk::EMULATED, disk::VIRTIO),
    };
    let (workload, notes) = disk::workload(&plan)?;
    show.measure(&args.common, kernel, workload, notes)
}

/// Runs `isolab bench net`.
///
/// # Errors
/// What the operator should read.
pub fn net(args: NetBench) -> Result<ExitCode> {
    let (setup, kernel) = setup(&args.common, &net::subjects(), &net::jobs())?;
    let plan = net::NetPlan { setup, mebibytes: args.mebibytes, pings: args.pings };
    let show = Shown {
        name: "net",
        jobs: net::jobs(),
        subjects: net::subjects(),
        pair: (net::EMULATED, net::VIRTIO),
    };
    let (workload, notes) = net::workload(&plan)?;
    show.measure(&args.common, kernel, workload, notes)
}

fn setup(common: &Common, subjects: &[&str], jobs: &[&str]) -> Result<(Setup, String)> {
    if let Some(twice) = duplicate(&common.peers) {
        bail!("{twice} is named twice");
    }
    if let Some(peer) = common.peers.iter().find(|peer| peer.lightest().is_none()) {
        bail!("{peer} has no machines");
    }
    for (kind, chosen, all) in [("subject", &common.only, subjects), ("job", &common.jobs, jobs)] {
        if let Some(unknown) = chosen.iter().find(|name| !all.contains(&name.as_str())) {
            bail!("unknown {kind} `{unknown}`; there are {}", all.join(", "));
        }
    }
    let kernel = guest_kernel(Level::Paravirt, common.kernel.as_deref())?;
    let name = kernel.to_string();
    let setup = Setup {
        program: own_program()?,
        peers: common.peers.clone(),
        only: common.only.clone(),
        jobs: common.jobs.clone(),
        time: common.time,
        kernel: kernel.image,
        memory: common.memory,
    };
    Ok((setup, name))
}

/// How a benchmark's results are shown.
struct Shown {
    name: &'static str,
    jobs: Vec<&'static str>,
    subjects: Vec<&'static str>,
    /// Ours: emulated and paravirtual.
    pair: (&'static str, &'static str),
}

impl Shown {
    fn measure(
        &self,
        common: &Common,
        kernel: String,
        mut workload: GuestJobs,
        notes: Vec<String>,
    ) -> Result<ExitCode> {
        let mut session = common.output.begin(self.name, Rounds::Fixed(common.runs))?;
        let mut findings = session.runner.run(&mut workload)?;
        // The guests' files, tap and server.
        drop(workload);
        findings.notes.extend(notes);
        findings.notes.extend(guest_jobs::without_exits(&findings));
        let mut report = session.report(Host::detect(None, Some(kernel)), findings);
        let (slow, fast) = self.pair;
        report.notes.extend(guest_jobs::causes(&report, &self.jobs, slow, fast));
        let table = guest_jobs::table(&report, self.name, &self.jobs, &self.subjects);
        let mut text = format!(
            "{}\n\nMedians; exits and interrupts for each piece of work; \
             ratios of throughput\n{table}\n",
            report.host
        );
        text += &remarks_of(&report);
        session.finish(&report, &text, &common.output)
    }
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
