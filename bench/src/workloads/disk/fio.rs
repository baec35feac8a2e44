//! What fio prints with `--output-format=json` (fio(1), "JSON output").

use std::time::Duration;

use serde::Deserialize;

use super::super::jobs::Figures;

/// Finds the figures in what fio printed.
pub type Reading = fn(&str) -> Result<Figures, String>;

/// How much fio does.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// So many requests.
    Requests(u32),
    /// As many as come.
    Time(Duration),
}

/// A call of fio on `file`, a path with options about it, with requests of `block` bytes. Unless `direct`, the page cache is
/// in between.
pub fn command(file: &str, direct: bool, block: u32, amount: Amount, options: &str) -> String {
    let amount = match amount {
        // Beyond the end of the file, fio begins anew.
        Amount::Requests(count) => format!("--io_size={}", u64::from(count) * u64::from(block)),
        Amount::Time(time) => format!("--time_based --runtime={}ms", time.as_millis()),
    };
    let direct = u8::from(direct);
    format!(
        "fio --name=job --filename={file} --direct={direct} --thread --output-format=json --bs={block} {amount} {options}"
    )
}

/// One request: what fio costs without the job's work.
pub fn idle(file: &str, direct: bool) -> String {
    command(file, direct, 4096, Amount::Requests(1), "--rw=read --ioengine=libaio")
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<JobOutput>,
}

#[derive(Deserialize)]
struct JobOutput {
    /// The errno that ended the job; 0 for none.
    error: i32,
    read: Direction,
    write: Direction,
    sync: Sync,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: u64,
    /// Requests a second.
    iops: f64,
    /// Bytes a second.
    bw_bytes: f64,
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Sync {
    total_ios: u64,
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    /// In nanoseconds.
    mean: f64,
}

/// Requests a second.
pub fn iops(output: &str) -> Result<Figures, String> {
    let job = parse(output)?;
    figures(&job, |direction| direction.iops)
}

/// MiB a second.
pub fn bandwidth(output: &str) -> Result<Figures, String> {
    let job = parse(output)?;
    figures(&job, |direction| direction.bw_bytes / f64::from(1 << 20))
}

/// Writes a second, each of which was followed by an fsync. The latency is that of both.
pub fn synced(output: &str) -> Result<Figures, String> {
    let job = parse(output)?;
    if job.sync.total_ios == 0 {
        return Err("fio did no fsync".to_owned());
    }
    let writes = figures(&job, |direction| direction.iops)?;
    Ok(Figures { latency: writes.latency.map(|l| l + job.sync.lat_ns.mean / 1e3), ..writes })
}

fn parse(output: &str) -> Result<JobOutput, String> {
    let not_fio = |error| format!("fio printed no report that is understood: {error}: {output}");
    let output: Output = serde_json::from_str(output).map_err(not_fio)?;
    let [job] = <[JobOutput; 1]>::try_from(output.jobs)
        .map_err(|jobs| format!("fio reports {} jobs instead of one", jobs.len()))?;
    if job.error != 0 {
        let error = std::io::Error::from_raw_os_error(job.error);
        return Err(format!("fio reports an error: {error}"));
    }
    Ok(job)
}

/// Of the direction that was used.
fn figures(job: &JobOutput, throughput: fn(&Direction) -> f64) -> Result<Figures, String> {
    let used = if job.read.total_ios > 0 { &job.read } else { &job.write };
    if used.total_ios == 0 {
        return Err("fio did no request; give it more, or more time".to_owned());
    }
    Ok(Figures {
        throughput: throughput(used),
        latency: Some(used.lat_ns.mean / 1e3),
        work: used.total_ios as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shortened from fio 3.33.
    fn report(error: i32, reads: u64, writes: u64, syncs: u64) -> String {
        let direction = |ios: u64| {
            format!(
                r#"{{"io_bytes": {bytes}, "bw_bytes": {bytes}, "bw": 1, "iops": {ios}.5,
                    "total_ios": {ios}, "lat_ns": {{"min": 1, "mean": 2500.0, "stddev": 0.5}}}}"#,
                bytes = ios << 20
            )
        };
        format!(
            r#"{{"fio version": "fio-3.33", "jobs": [{{"jobname": "job", "error": {error},
                "read": {}, "write": {},
                "sync": {{"total_ios": {syncs}, "lat_ns": {{"mean": 1500.0}}}}}}],
                "disk_util": []}}"#,
            direction(reads),
            direction(writes)
        )
    }

    #[test]
    fn fio_is_told_how_much_or_how_long() {
        let counted = command("/dev/vda", true, 131_072, Amount::Requests(300), "--rw=read");
        assert!(counted.contains("--direct=1 "), "{counted}");
        assert!(counted.ends_with("--bs=131072 --io_size=39321600 --rw=read"), "{counted}");
        let timed = Amount::Time(Duration::from_millis(1500));
        let timed = command("/data/file --size=9", false, 4096, timed, "--rw=randread");
        assert!(timed.contains("--filename=/data/file --size=9 --direct=0 "), "{timed}");
        assert!(timed.ends_with("--time_based --runtime=1500ms --rw=randread"), "{timed}");
    }

    #[test]
    fn the_direction_that_was_used_counts() {
        let read = iops(&report(0, 300, 0, 0)).unwrap();
        assert_eq!(read, Figures { throughput: 300.5, latency: Some(2.5), work: 300.0 });
        let written = bandwidth(&report(0, 0, 40, 0)).unwrap();
        assert_eq!(written, Figures { throughput: 40.0, latency: Some(2.5), work: 40.0 });
    }

    #[test]
    fn a_write_s_latency_includes_its_fsync() {
        assert_eq!(synced(&report(0, 0, 7, 7)).unwrap().latency, Some(4.0));
        assert!(synced(&report(0, 0, 7, 0)).is_err());
    }

    #[test]
    fn failures_are_told() {
        assert!(iops(&report(5, 1, 0, 0)).unwrap_err().contains("Input/output error"));
        assert!(iops(&report(0, 0, 0, 0)).unwrap_err().contains("no request"));
        assert!(iops("fio: unknown option").unwrap_err().contains("unknown option"));
        assert!(iops(r#"{"jobs": []}"#).unwrap_err().contains("0 jobs"));
    }
}
