//! `isolab bench startup`

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_bench::Host;
use isolab_bench::report::{self, Findings, Report};
use isolab_bench::runner::Runner;
use isolab_bench::subjects::Peer;
use isolab_bench::workloads::service::{self, Service};
use isolab_bench::workloads::startup::{self, StartupPlan};
use isolab_images::Store;

use super::levels::Levels;
use super::peers::{self, Starts};
use super::running::Running;
use super::{own_program, remarks_of, tables_of};

/// From spawning `isolab run` to the workload's first output line and to its end, and to a port that answers.
///
/// One round warms up, then each level has its turn in each round. Both VM levels run
/// one and the same kernel; where that is not the stock one, fullvirt-stock is one more subject:
/// an unmodified OS on emulated hardware.
///
/// The part about ports needs root and an image with httpd: a network is made for the time of the measurement, with
/// somebody on it. `run -d -p` is timed to its own end and to the first connection from the host, and
/// what a network costs is the difference of two starts in the foreground.
///
/// With --peers, bare `isolab vm run` is measured beside other VMMs instead (and beside levels
/// that are named): one kernel, an initramfs of one tiny program, the same RAM, one vCPU. Time
/// runs from the spawn of the VMM to its guest's line on the console, and to its end; memory is
/// what is resident beyond guest RAM; exits are KVM's own count, until that line. Container
/// runtimes are peers of isolab-oci: `RUNTIME run` of /bin/true, with the configuration of `runc
/// spec`, from the spawn to the end; podman is one of `isolab run`, each from a store of its own. kata is one of `isolab run
/// --isolation paravirt`: by containerd's `ctr run`, with a containerd of the measurement's own and what Kata's configuration
/// says, but for the guest's memory. Where that names another kernel than ours there is no ratio.
#[derive(Debug, Args)]
#[command(
    mut_arg("isolation", |it| it.help("Levels, separated by commas; by default all of them, with --peers none")),
    mut_arg("memory", |it| it.default_value("128M")),
    after_help = "Examples:\n  \
    scripts/kvm-host run --icount -- isolab bench startup --runs 5 --format json\n  \
    scripts/kvm-host run --icount -- isolab bench startup --peers qemu,firecracker\n  \
    isolab bench startup --peers runc,crun --runs 50"
)]
pub struct Startup {
    #[command(flatten)]
    levels: Levels,
    /// Others, separated by commas: qemu, qemu-tcg, firecracker, cloud-hypervisor, kvmtool, crosvm; runc,
    /// crun, youki; podman; kata. Those that are not installed are left out.
    #[arg(long, value_name = "PEER,...", value_delimiter = ',')]
    peers: Vec<Peer>,
    #[command(flatten)]
    running: Running,
    /// The image.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
    /// Drop the host's caches of files before each start, which takes root and slows everybody there.
    #[arg(long)]
    cold: bool,
    /// Leave out networks and ports.
    #[arg(long)]
    no_network: bool,
    /// The workload, which prints at least one line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_values = ["echo", "ready"])]
    command: Vec<OsString>,
}

/// Measures, and prints and writes the report.
///
/// # Errors
/// What the operator should read.
pub fn run(args: Startup) -> Result<ExitCode> {
    let levels = args.levels.beside(&args.peers)?;
    let mut session = args.running.begin("startup", 1)?;
    let mut findings = Findings::default();
    let (mut image, mut kernel_name, mut baseline) = (None, None, None);
    if let Some((subjects, name)) = levels {
        let found = Store::open_default()?.resolve(&args.image)?;
        image = Some((args.image.clone(), found.digest().to_owned()));
        kernel_name = name;
        baseline = subjects.first().map(|subject| subject.name.clone());
        let plan = StartupPlan {
            program: own_program()?,
            subjects,
            options: args.levels.options(),
            image: args.image.clone(),
            command: args.command.clone(),
            cold: args.cold,
        };
        findings.extend(measure_levels(plan, !args.no_network, &mut session.runner)?);
    }
    let starts =
        Starts { peers: &args.peers, memory: args.levels.memory, kernel: args.levels.kernel() };
    if let Some(kernel) = starts.guest_kernel()? {
        kernel_name.get_or_insert_with(|| kernel.to_string());
    }
    for (_, found) in starts.measure(&mut session.runner) {
        findings.extend(found?);
        if findings.interrupted {
            break;
        }
    }
    let report = session.report(Host::detect(image, kernel_name), findings);
    let text = tables(&report, baseline.as_deref());
    session.finish(&report, &text, &args.running.output)
}

/// Starts, and before them services, if they are wanted.
fn measure_levels(plan: StartupPlan, network: bool, runner: &mut Runner) -> Result<Findings> {
    let mut findings = Findings::default();
    // Before the other part, which waits for everything that it has started. A network that is in use is never cold.
    if network && !plan.cold {
        findings.extend(runner.run(&mut Service::new(&plan)?)?);
    }
    findings.extend(runner.run(&mut startup::Startup::new(plan))?);
    Ok(findings)
}

fn tables(report: &Report, first_level: Option<&str>) -> String {
    let mut text = format!("{}\n\n", report.host);
    let cold_or_warm = report.benchmarks().into_iter().find(|it| it.starts_with("startup"));
    let levels = cold_or_warm.unwrap_or_default();
    if let Some(level) = first_level {
        let metrics = [
            (startup::TO_FIRST_OUTPUT, "From spawn to the first output line, ms"),
            (startup::TO_EXIT, "From spawn to exit, ms"),
            (startup::TO_GONE, "From spawn until nothing of it is left, ms"),
        ];
        text += &tables_of(report, levels, &metrics, level);
        if report.summary(level, service::TO_PORT).is_some() {
            let metrics = [
                (
                    service::WITHOUT_NETWORK,
                    "Without a network, from spawn to the first output line, ms",
                ),
                (service::ON_NETWORK, "On a network, from spawn to the first output line, ms"),
                (service::TO_DETACHED, "From spawn of run -d to its end, ms"),
                (service::TO_PORT, "From spawn of run -d -p to a connection from the host, ms"),
            ];
            text += &tables_of(report, "service", &metrics, level);
        }
    }
    text += &peers::tables(report);
    if first_level.is_some() {
        let phases = report::medians(report, levels, &startup::PHASES);
        text += &format!("Where the time to the first output line goes, medians, ms\n{phases}\n");
    }
    text + &remarks_of(report)
}
