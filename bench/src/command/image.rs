//! `isolab bench image`

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use isolab_bench::images::first_use;
use isolab_bench::images::stores::{self, Peer};
use isolab_bench::{Host, Measurement, Report};
use isolab_command::format::{Format, parse_size};
use isolab_images::{ArchiveFormat, Store};
use isolab_isolation::Level;

use super::{choose, notes_of, own_program, subjects, tables_of, with_progress, write_report};

/// From an archive to the workload's first output line, with nothing kept and with all.
///
/// Each sample begins with an empty store: `isolab image load`, `isolab run` to its first line,
/// and `isolab run` once more. The levels are interleaved; both VM levels run one kernel.
///
/// With --peers, taking in a large image is measured instead (and beside levels that are named):
/// from an archive to unpacked layers, and the bytes on the disk that they then take.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    scripts/kvm-host run --icount -- isolab bench image --runs 3\n  \
    isolab bench image --peers podman --runs 5")]
pub struct Images {
    /// Levels, separated by commas; by default all of them, with --peers none.
    #[arg(long, value_name = "LEVEL,...", value_delimiter = ',')]
    isolation: Vec<Level>,
    /// Other engines, separated by commas: podman. Those that are not installed are left out.
    #[arg(long, value_name = "ENGINE,...", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Counted rounds.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Guest kernel: slim, stock, cloud, or a file; by default the first of these that exists.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Memory of every instance.
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_size)]
    memory: u64,
    /// The image that the levels run.
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    image: String,
    /// Size of the files in the image that engines take in; it is made for the purpose.
    #[arg(long, value_name = "SIZE", default_value = "200M", value_parser = parse_size)]
    size: u64,
    /// Layers of that image.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    layers: u32,
    /// Write the results into this folder as well, as JSON and as tables.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The workload, which prints at least one line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_values = ["echo", "ready"])]
    command: Vec<OsString>,
}

/// Measures, and prints and writes the report.
pub fn run(mut args: Images) -> Result<ExitCode> {
    choose(&mut args.isolation, &args.peers, Peer::name)?;
    // A layer is made in memory.
    if args.size / u64::from(args.layers) > 1 << 30 {
        bail!("--size {}: that is more than 1 GiB a layer; give more --layers", args.size);
    }
    let (mut results, mut notes) = (Vec::new(), Vec::new());
    let (mut image, mut kernel, mut baseline) = (None, None, None);
    if !args.isolation.is_empty() {
        let store = Store::open_default()?;
        image = Some((args.image.clone(), store.resolve(&args.image)?.digest().to_owned()));
        let measured;
        (measured, kernel) = measure_levels(&args, &store)?;
        baseline = measured.first().map(|first| first.subject.clone());
        results.extend(measured);
    }
    if !args.peers.is_empty() {
        let plan = stores::StoresPlan {
            program: own_program()?,
            peers: args.peers.clone(),
            runs: args.runs,
            bytes: args.size,
            layers: args.layers,
        };
        let found = with_progress(args.runs, |progress| stores::measure(&plan, progress))?;
        results.extend(found.results);
        notes.extend(found.notes);
    }
    let report = Report { host: Host::detect(image, kernel), results, notes };
    let text = tables(&report, baseline.as_deref());
    write_report("image", &report, &text, args.format, args.out.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

fn measure_levels(args: &Images, store: &Store) -> Result<(Vec<Measurement>, Option<String>)> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("image.tar");
    store.save(std::slice::from_ref(&args.image), &archive, ArchiveFormat::OciArchive)?;
    let (subjects, kernel) = subjects(&args.isolation, args.kernel.as_deref())?;
    let plan = first_use::FirstUsePlan {
        program: own_program()?,
        subjects,
        runs: args.runs,
        options: vec!["--memory".into(), args.memory.to_string().into()],
        archive,
        command: args.command.clone(),
    };
    let measured = with_progress(args.runs, |progress| first_use::measure(&plan, progress))?;
    Ok((measured, kernel))
}

fn tables(report: &Report, first_level: Option<&str>) -> String {
    let mut text = format!("{}\n\n", report.host);
    if let Some(level) = first_level {
        let metrics = [
            (first_use::LOAD, "Loading into an empty store, ms"),
            (first_use::FIRST_USE, "From the load to the first output line, ms"),
            (first_use::CACHED, "Again, from spawn to the first output line, ms"),
        ];
        text += &tables_of(report, &metrics, level);
    }
    if report.summary(stores::OWN, stores::DISK).is_some() {
        let metrics = [
            (stores::LOAD_AND_UNPACK, "From an archive to unpacked layers, ms"),
            (stores::DISK, "On the disk, MiB"),
            (stores::DISK_TO_PUSH, "Of these, kept to push or save the image again, MiB"),
        ];
        text += &tables_of(report, &metrics, stores::OWN);
    }
    text + &notes_of(report)
}
