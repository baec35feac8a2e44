//! `isolab bench all`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_bench::Host;
use isolab_bench::report::{self, Findings, Report};
use isolab_bench::runner::Runner;
use isolab_bench::subjects::{Level as Subject, Peer};
use isolab_bench::workloads::density::{Density, DensityPlan};
use isolab_bench::workloads::disk::levels as disk;
use isolab_bench::workloads::net::levels as net;
use isolab_bench::workloads::probes::Kind;
use isolab_bench::workloads::startup::{self, StartupPlan};
use isolab_images::Store;

use super::devices::{Guests, Machines};
use super::instances::{self, DiskWork, Instances, Shop};
use super::levels::Levels;
use super::peers::Starts;
use super::running::Running;
use super::{duplicate, own_program, probes, remarks_of, tiers};

/// Of which the time is shared.
const PARTS: u32 = 7;
/// And these: four kinds of starts, disks, networks.
const PARTS_OF_PEERS: u32 = 6;
/// Memory of the guests that fio runs in, which are in it with all their files, in bytes: as `bench disk` gives them.
const MACHINES_MEMORY: u64 = 512 << 20;
/// Where the report goes if nothing else is said.
const FOLDER: &str = "bench-results";
/// A start of the least that an image has.
const COMMAND: [&str; 2] = ["echo", "ready"];

/// The price list: startup, CPU, memory, disk, network, density and requests at every level, as one report with plots.
///
/// What cannot be measured here is left out, and the report says so: disk and network need fio, iperf3 and
/// busybox-static on this host, the network root, and the requests the images of `isolab tiers build`.
/// With --peers, each of them is measured beside ours of its kind: container engines, runtimes and VMMs by what a start needs, and
/// QEMU by its disks and networks.
/// Each level has its turn in each round; the first level takes part twice, under two names, to
/// test the benchmark itself. Ctrl-C keeps what was measured, and --resume goes on with it. The
/// report is report.json, report.txt and report.html in --out, by default bench-results.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab bench all --isolation process,container --time 10m\n  \
    scripts/kvm-host run --icount --out results -- isolab bench all --quick --out results")]
pub struct All {
    #[command(flatten)]
    levels: Levels,
    /// Others, separated by commas, as of `bench startup`. Those that are not installed are left out.
    #[arg(long, value_name = "PEER,...", value_delimiter = ',')]
    peers: Vec<Peer>,
    #[command(flatten)]
    running: Running,
    /// Percent of the operations that a probe does by default.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    operations: Option<u32>,
    /// Parts that are left out, separated by commas: density, disk, net, tiers.
    #[arg(long, value_name = "PART,...", value_delimiter = ',',
        value_parser = ["density", "disk", "net", "tiers"])]
    without: Vec<String>,
    /// The image that is started.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
}

/// Measures, and prints and writes the report.
///
/// # Errors
/// What the operator should read.
pub fn run(mut args: All) -> Result<ExitCode> {
    let folder = args.running.output.out.get_or_insert_with(|| PathBuf::from(FOLDER)).clone();
    let image = Store::open_default()?.resolve(&args.image)?;
    let image = (args.image.clone(), image.digest().to_owned());
    if let Some(twice) = duplicate(&args.peers) {
        bail!("{twice} is named twice");
    }
    let (subjects, kernel) = args.levels.subjects(true)?;
    let of_peers = if args.peers.is_empty() { 0 } else { PARTS_OF_PEERS };
    let mut session = args.running.begin("report", PARTS + of_peers)?;
    let mut findings = measure(&args, &subjects, &mut session.runner)?;
    measure_beside_peers(&args, &mut findings, &mut session.runner);
    let mut report = session.report(Host::detect(Some(image), kernel), findings);
    for machines in [Machines::disk(), Machines::net()] {
        report.notes.extend(machines.causes(&report));
    }
    let text = format!("{}report: {}\n", text(&report), folder.join("report.html").display());
    session.finish(&report, &text, &args.running.output)
}

/// Each part in turn. A part for which something is missing on this host is left out with a note.
fn measure(args: &All, subjects: &[Subject], runner: &mut Runner) -> Result<Findings> {
    let quick = args.running.quick;
    let plan = StartupPlan {
        program: own_program()?,
        subjects: subjects.to_vec(),
        options: args.levels.options(),
        image: args.image.clone(),
        command: COMMAND.map(Into::into).into(),
        cold: false,
    };
    let mut findings: Findings = runner.run(&mut startup::Startup::new(plan))?;
    let percent = args.operations.unwrap_or(probes::percent(quick));
    for kind in [Kind::Cpu, Kind::Memory] {
        if !findings.interrupted {
            findings.extend(probes::measure(
                kind,
                subjects.to_vec(),
                args.levels.memory,
                percent,
                runner,
            )?);
        }
    }
    // Once is enough for the test of the benchmark, and another kernel is another start.
    let levels: Vec<Subject> = subjects
        .iter()
        .filter(|it| !report::is_again(&it.name) && it.other_work.is_none())
        .cloned()
        .collect();
    for (name, part) in PARTS_OF_LEVELS {
        if findings.interrupted || args.without.iter().any(|without| without == name) {
            continue;
        }
        match part(args, levels.clone(), runner) {
            Ok(more) => findings.extend(more),
            Err(error) => findings.notes.push(format!("{name} is left out: {error:#}")),
        }
    }
    Ok(findings)
}

/// Likewise, of starts, disks and networks.
fn measure_beside_peers(args: &All, findings: &mut Findings, runner: &mut Runner) {
    let (kernel, memory) = (args.levels.kernel(), args.levels.memory);
    let add = |findings: &mut Findings, what: &str, found: Result<Findings>| match found {
        Ok(more) => findings.extend(more),
        Err(error) => findings.notes.push(format!("{what} is left out: {error:#}")),
    };
    if findings.interrupted {
        return;
    }
    for (what, found) in (Starts { peers: &args.peers, memory, kernel }).measure(runner) {
        add(findings, what, found);
        if findings.interrupted {
            return;
        }
    }
    let peers = args.peers.iter().copied().filter(|peer| peer.lightest().is_some());
    let peers: Vec<Peer> = peers.collect();
    let guests = Guests { kernel, memory: MACHINES_MEMORY, quick: args.running.quick };
    for (name, machines) in [("disk", Machines::disk()), ("net", Machines::net())] {
        let is_left_out = args.without.iter().any(|without| without == name);
        if !peers.is_empty() && !is_left_out && !findings.interrupted {
            let found = machines.measure(&peers, &guests, runner);
            add(findings, &format!("{name} of machines"), found);
        }
    }
}

type Part = fn(&All, Vec<Subject>, &mut Runner) -> Result<Findings>;

/// By their names.
const PARTS_OF_LEVELS: [(&str, Part); 4] =
    [("density", density), ("disk", disk), ("net", net), ("tiers", tiers)];

fn density(args: &All, subjects: Vec<Subject>, runner: &mut Runner) -> Result<Findings> {
    let plan = DensityPlan {
        program: own_program()?,
        subjects,
        instances: if args.running.quick { 2 } else { 10 },
        options: args.levels.options(),
        image: args.image.clone(),
    };
    Ok(runner.run(&mut Density::new(plan))?)
}

fn disk(args: &All, subjects: Vec<Subject>, runner: &mut Runner) -> Result<Findings> {
    let jobs = if args.running.quick { disk::QUICK.map(str::to_owned).into() } else { Vec::new() };
    let work = DiskWork {
        size: if args.running.quick { 16 << 20 } else { 64 << 20 },
        requests: 1000,
        time: None,
        direct: true,
    };
    instances::disk(Instances { subjects, memory: args.levels.memory, jobs }, &work, runner)
}

fn net(args: &All, subjects: Vec<Subject>, runner: &mut Runner) -> Result<Findings> {
    let jobs = if args.running.quick { net::QUICK.map(str::to_owned).into() } else { Vec::new() };
    let (mebibytes, requests) = if args.running.quick { (4, 100) } else { (32, 1000) };
    instances::net(
        Instances { subjects, memory: args.levels.memory, jobs },
        mebibytes,
        requests,
        runner,
    )
}

fn tiers(args: &All, subjects: Vec<Subject>, runner: &mut Runner) -> Result<Findings> {
    let store = Store::open_default()?;
    store.resolve(tiers::IMAGE).context("isolab tiers build makes the images")?;
    let shop = match args.running.quick {
        true => Shop {
            apps: vec![1],
            rates: vec![25, 50, 100],
            time: Duration::from_secs(1),
            requests: tiers::QUICK_REQUESTS,
            port: tiers::PORT,
        },
        false => Shop {
            apps: vec![1, 2, 4],
            rates: vec![25, 50, 100, 200],
            time: Duration::from_secs(5),
            requests: tiers::REQUESTS,
            port: tiers::PORT,
        },
    };
    instances::tiers(subjects, shop, runner)
}

fn text(report: &Report) -> String {
    let machines = [Machines::disk(), Machines::net()];
    let tables = report.benchmarks().into_iter().map(|benchmark| {
        match (benchmark, machines.iter().find(|it| it.is(benchmark))) {
            (_, Some(machines)) => machines.table(report) + "\n",
            ("disk" | "net", None) => instances::table(report, benchmark),
            _ => instances::plain(report, benchmark),
        }
    });
    let (host, short) = (&report.host, report::in_short(report));
    let first = if short.is_empty() { short } else { short + "\n\n" };
    format!("{host}\n\n{first}{}{}", tables.collect::<String>(), remarks_of(report))
}
