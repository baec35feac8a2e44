//! iperf3: the host's server, and what the guest's client prints with `--json`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use super::super::jobs::Figures;
use crate::machines::MachinesError;

/// An iperf3 that listens on an address of the host's. Killed when dropped.
pub struct Server(Child);

impl Server {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// iperf3 cannot be started, or does not listen.
    pub fn start(program: &Path, address: &str) -> Result<Self, MachinesError> {
        let failed =
            |source| MachinesError::Host { action: "start", subject: "the host's iperf3", source };
        let mut child = Command::new(program)
            .args(["--server", "--bind", address, "--forceflush"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take();
        // From here on it is killed, whatever comes.
        let server = Self(child);
        let mut lines =
            BufReader::new(stdout.ok_or_else(|| failed(std::io::Error::other("no pipe")))?);
        let mut said = String::new();
        while !said.contains("listening") {
            if lines.read_line(&mut said).map_err(failed)? == 0 {
                return Err(failed(std::io::Error::other(format!("it ended; it said: {said}"))));
            }
        }
        // What it says of each client is read by nobody, but must not block it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Ok(server)
    }
}

impl Server {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Deserialize)]
struct Output {
    error: Option<String>,
    #[serde(default)]
    end: Option<End>,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bytes: f64,
    bits_per_second: f64,
}

/// What arrived at the other end, in Mbit/s; pieces of work are MiB.
pub fn stream(output: &str) -> Result<Figures, String> {
    let not_iperf =
        |error| format!("iperf3 printed no report that is understood: {error}: {output}");
    let output: Output = serde_json::from_str(output).map_err(not_iperf)?;
    if let Some(error) = output.error {
        return Err(format!("iperf3 reports an error: {error}"));
    }
    let sum = output.end.ok_or("iperf3 reports no end of the stream")?.sum_received;
    if sum.bytes <= 0.0 {
        return Err("nothing arrived".to_owned());
    }
    Ok(Figures {
        throughput: sum.bits_per_second / 1e6,
        latency: None,
        work: sum.bytes / f64::from(1 << 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_counts() {
        // Shortened from iperf 3.12.
        let output = r#"{"start": {"version": "iperf 3.12"}, "intervals": [], "end": {
            "sum_sent": {"seconds": 1.0, "bytes": 5242880, "bits_per_second": 41943040.0},
            "sum_received": {"seconds": 1.0, "bytes": 4194304, "bits_per_second": 33554432.0}}}"#;
        let figures = stream(output).unwrap();
        assert_eq!(figures, Figures { throughput: 33.554432, latency: None, work: 4.0 });
    }

    #[test]
    fn failures_are_told() {
        let refused = r#"{"start": {}, "end": {}, "error": "unable to connect to server"}"#;
        for (output, word) in [
            (r#"{"error": "unable to connect to server"}"#, "unable to connect"),
            (refused, ""),
            ("iperf3: error", "no report"),
            ("{}", "no end"),
        ] {
            let fault = stream(output).unwrap_err();
            assert!(fault.contains(word), "{fault}");
        }
    }
}
