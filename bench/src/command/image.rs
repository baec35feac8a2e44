//! `isolab bench image`

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use isolab_bench::Host;
use isolab_bench::report::{Findings, Report};
use isolab_bench::runner::Runner;
use isolab_bench::subjects::{Level, Peer};
use isolab_bench::workloads::images::first_use;
use isolab_bench::workloads::images::stores;
use isolab_command::format::parse_size;
use isolab_images::{ArchiveFormat, Store};

use super::levels::Levels;
use super::running::Running;
use super::{own_program, remarks_of, tables_of};

/// From an archive to the workload's first output line, with nothing kept and with all.
///
/// Each sample begins with an empty store: `isolab image load`, `isolab run` to its first line,
/// and `isolab run` once more. The levels are interleaved; both VM levels run one kernel.
///
/// With --peers, taking in a large image is measured instead (and beside levels that are named):
/// from an archive to unpacked layers, and the bytes on the disk that they then take.
#[derive(Debug, Args)]
#[command(
    mut_arg("isolation", |it| it.help("Levels, separated by commas; by default all of them, with --peers none")),
    mut_arg("memory", |it| it.default_value("128M")),
    after_help = "Examples:\n  \
    scripts/kvm-host run --icount -- isolab bench image --runs 3\n  \
    isolab bench image --peers podman --runs 5"
)]
pub struct Images {
    #[command(flatten)]
    levels: Levels,
    /// Other engines, separated by commas: podman. Those that are not installed are left out.
    #[arg(long, value_name = "ENGINE,...", value_delimiter = ',')]
    peers: Vec<Peer>,
    #[command(flatten)]
    running: Running,
    /// The image that the levels run.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
    /// Size of the files in the image that engines take in; it is made for the purpose.
    #[arg(long, value_name = "SIZE", default_value = "200M", value_parser = parse_size)]
    size: u64,
    /// Layers of that image.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    layers: u32,
    /// The workload, which prints at least one line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_values = ["echo", "ready"])]
    command: Vec<OsString>,
}

/// Measures, and prints and writes the report.
pub fn run(args: Images) -> Result<ExitCode> {
    let levels = args.levels.beside(&args.peers)?;
    if let Some(peer) = args.peers.iter().find(|peer| !peer.is_engine()) {
        bail!("{peer} has no store of images; there is podman");
    }
    // A layer is made in memory.
    if args.size / u64::from(args.layers) > 1 << 30 {
        bail!("--size {}: that is more than 1 GiB a layer; give more --layers", args.size);
    }
    let mut session = args.running.begin("image", 1)?;
    let mut findings = Findings::default();
    let (mut image, mut kernel, mut baseline) = (None, None, None);
    if let Some((subjects, name)) = levels {
        let store = Store::open_default()?;
        image = Some((args.image.clone(), store.resolve(&args.image)?.digest().to_owned()));
        kernel = name;
        let measured = measure_levels(&args, subjects, &store, &mut session.runner)?;
        baseline = measured.results.first().map(|first| first.subject.clone());
        findings.extend(measured);
    }
    if !args.peers.is_empty() {
        let plan = stores::StoresPlan {
            program: own_program()?,
            peers: args.peers.clone(),
            bytes: args.size,
            layers: args.layers,
        };
        let (mut stores, notes) = stores::Stores::new(&plan)?;
        findings.extend(session.runner.run(&mut stores)?);
        findings.notes.extend(notes);
    }
    let report = session.report(Host::detect(image, kernel), findings);
    let text = tables(&report, baseline.as_deref());
    session.finish(&report, &text, &args.running.output)
}

fn measure_levels(
    args: &Images,
    subjects: Vec<Level>,
    store: &Store,
    runner: &mut Runner,
) -> Result<Findings> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("image.tar");
    store.save(std::slice::from_ref(&args.image), &archive, ArchiveFormat::OciArchive)?;
    let plan = first_use::FirstUsePlan {
        program: own_program()?,
        subjects,
        options: args.levels.options(),
        archive,
        command: args.command.clone(),
    };
    Ok(runner.run(&mut first_use::FirstUse::new(plan))?)
}

fn tables(report: &Report, first_level: Option<&str>) -> String {
    let mut text = format!("{}\n\n", report.host);
    if let Some(level) = first_level {
        let metrics = [
            (first_use::LOAD, "Loading into an empty store, ms"),
            (first_use::FIRST_USE, "From the load to the first output line, ms"),
            (first_use::CACHED, "Again, from spawn to the first output line, ms"),
        ];
        text += &tables_of(report, "image", &metrics, level);
    }
    if report.summary(stores::OWN, stores::DISK).is_some() {
        let metrics = [
            (stores::LOAD_AND_UNPACK, "From an archive to unpacked layers, ms"),
            (stores::DISK, "On the disk, MiB"),
            (stores::DISK_TO_PUSH, "Of these, kept to push or save the image again, MiB"),
        ];
        text += &tables_of(report, "stores", &metrics, stores::OWN);
    }
    text + &remarks_of(report)
}
