//! Our probe on the network (`bench/probe`): the host's end, which answers, and what its client prints.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::super::jobs::Figures;

/// Where a probe listens.
pub const PORT: &str = "7411";

/// The host's probe, which answers. Killed when dropped.
pub struct Server(Child);

impl Server {
    /// Starts it at an address of the host's, and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, or does not listen.
    pub fn start(program: &Path, address: &str) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", &format!("{address}:{PORT}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take();
        // From here on it is killed, whatever comes.
        let server = Self(child);
        // It says when it listens.
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.is_empty() {
            false => Ok(server),
            true => Err(io::Error::other("it has ended")),
        }
    }

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

/// The figures in `NUMBER NANOSECONDS`: so many exchanges one after the other, each of which took so long.
///
/// # Errors
/// Something else was printed.
pub fn exchanges(output: &str) -> Result<Figures, String> {
    let numbers = output.trim_end().split_once(' ');
    let numbers = numbers
        .and_then(|(count, each)| Some((count.parse::<f64>().ok()?, each.parse::<f64>().ok()?)));
    match numbers {
        Some((work, each)) if work > 0.0 && each > 0.0 && each.is_finite() => {
            Ok(Figures { throughput: 1e9 / each, latency: Some(each / 1e3), work })
        }
        _ => Err(format!("the probe printed `{output}`, which is no number with a time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_are_a_number_and_a_time() {
        let expected = Figures { throughput: 20_000.0, latency: Some(50.0), work: 400.0 };
        assert_eq!(exchanges("400 50000.0\n"), Ok(expected));
        for bad in ["", "400", "0 5", "4 0", "4 inf", "4 fast", "4 5\n6 7"] {
            assert!(exchanges(bad).is_err(), "{bad}");
        }
    }
}
