//! The parts of `isolab bench disk`, `net` and `tiers` that are of the levels; `isolab bench all` has them, too.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use isolab_bench::report::{self, Findings, Report};
use isolab_bench::runner::Runner;
use isolab_bench::subjects::Level;
use isolab_bench::workloads::disk::levels::{self as disk, DiskLevelsPlan};
use isolab_bench::workloads::jobs;
use isolab_bench::workloads::jobs::instances::InstanceJobs;
use isolab_bench::workloads::net::levels::{self as net, NetLevelsPlan};
use isolab_bench::workloads::tiers::{Tiers, TiersPlan};
use isolab_guest::package;

use super::own_program;

/// What all of them are told.
pub struct Instances {
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Memory of each instance, in bytes.
    pub memory: u64,
    /// The jobs that are done; none: all of them.
    pub jobs: Vec<String>,
}

/// How much fio does.
pub struct DiskWork {
    pub size: u64,
    pub requests: u32,
    pub time: Option<Duration>,
    pub direct: bool,
}

/// fio at the levels.
pub fn disk(instances: Instances, work: &DiskWork, runner: &mut Runner) -> Result<Findings> {
    let Instances { subjects, memory, jobs } = instances;
    let DiskWork { size, requests, time, direct } = *work;
    let program = own_program()?;
    let plan = DiskLevelsPlan { program, subjects, memory, size, requests, time, direct, jobs };
    let (workload, notes) = disk::workload(&plan)?;
    run(workload, notes, runner)
}

/// iperf3 and the probe at the levels.
pub fn net(
    instances: Instances,
    mebibytes: u32,
    requests: u32,
    runner: &mut Runner,
) -> Result<Findings> {
    let Instances { subjects, memory, jobs } = instances;
    let (program, probe) = (own_program()?, package::executable("isolab-probe")?);
    let plan = NetLevelsPlan { program, probe, subjects, memory, mebibytes, requests, jobs };
    let (workload, notes) = net::workload(&plan)?;
    run(workload, notes, runner)
}

/// How a shop is asked.
pub struct Shop {
    pub apps: Vec<u32>,
    pub rates: Vec<u32>,
    pub time: Duration,
    pub requests: u32,
    pub port: u16,
}

/// The three tiers at the levels.
pub fn tiers(subjects: Vec<Level>, shop: Shop, runner: &mut Runner) -> Result<Findings> {
    let program: PathBuf = own_program()?;
    let Shop { apps, rates, time, requests, port } = shop;
    let plan = TiersPlan { program, subjects, apps, rates, time, requests, port };
    let (mut tiers, notes) = Tiers::new(plan);
    let mut findings = runner.run(&mut tiers)?;
    findings.notes.extend(notes);
    Ok(findings)
}

fn run(mut workload: InstanceJobs, notes: Vec<String>, runner: &mut Runner) -> Result<Findings> {
    let mut findings = runner.run(&mut workload)?;
    findings.notes.extend(notes);
    Ok(findings)
}

/// The table of a benchmark's jobs, and what its figures are.
pub fn table(report: &Report, benchmark: &str) -> String {
    let jobs = jobs::names(report, benchmark);
    let subjects = report.subjects(benchmark);
    let table = jobs::table(report, benchmark, &jobs, &subjects);
    let mut text = format!(
        "{benchmark}: medians; costs of the host for each piece of work; ratios of throughput\n{table}\n"
    );
    for sentence in jobs::exits_by_device(report, benchmark, &jobs, &subjects) {
        text += &format!("{sentence}\n");
    }
    text + "\n"
}

/// Likewise of a benchmark without jobs.
pub fn plain(report: &Report, benchmark: &str) -> String {
    let table = report::by_metric(report, benchmark);
    let first = report.subjects(benchmark).first().copied().unwrap_or_default();
    format!("{benchmark}: medians, and ratios to {first}\n{table}\n\n")
}
