//! Compiling Linux, told while it goes on.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IsTerminal, stderr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use isolab_guest::programs;

/// How many steps the slim kernel takes, for the display: as many lines as make prints for
/// linux-source-6.1 6.1.192.
const USUAL_STEPS: u64 = 1800;
/// How many of the last lines tell why it failed.
const LAST_LINES: usize = 30;
/// How often it is told where nobody watches a bar.
const NEWS: Duration = Duration::from_secs(30);

/// Compiles vmlinux and bzImage in the configured `source`, on all processors that we may use.
pub fn compile(source: &Path) -> Result<()> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    eprintln!("isolab: compiling Linux by {jobs} jobs (about 8 minutes of one processor's time)");
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let mut make = Command::new(programs::find("nice", "coreutils")?);
    make.arg("make").arg("-C").arg(source).arg(format!("-j{jobs}"));
    // Same source and config, same kernel: nothing of this host or hour goes in.
    make.arg("KBUILD_BUILD_TIMESTAMP=1970-01-01 00:00 UTC");
    make.args(["KBUILD_BUILD_USER=isolab", "KBUILD_BUILD_HOST=isolab", "vmlinux", "bzImage"]);
    let messages = writer.try_clone().context("cannot duplicate a pipe")?;
    make.stdin(Stdio::null()).stdout(writer).stderr(messages);
    let mut child = make.spawn().context("cannot run make")?;
    // It has our ends of the pipe, which so ends with make.
    drop(make);
    let last = follow(BufReader::new(reader)).context("cannot read what make says")?;
    let status = child.wait().context("cannot wait for make")?;
    if !status.success() {
        last.iter().for_each(|line| eprintln!("{line}"));
        bail!("make failed ({status}); its last lines are above");
    }
    Ok(())
}

/// Reads to the end, and shows how far it is. Gives the last lines.
fn follow(output: impl BufRead) -> io::Result<VecDeque<String>> {
    let mut last = VecDeque::with_capacity(LAST_LINES);
    let bar = ProgressBar::new(USUAL_STEPS);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos} of about {len} steps, {elapsed}")
    {
        bar.set_style(style);
    }
    let (start, mut told) = (Instant::now(), Instant::now());
    for line in output.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        bar.inc(1);
        if !stderr().is_terminal() && told.elapsed() >= NEWS {
            told = Instant::now();
            let (steps, seconds) = (bar.position(), start.elapsed().as_secs());
            eprintln!("isolab: {steps} of about {USUAL_STEPS} steps, {seconds} s");
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    bar.finish_and_clear();
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let last = follow(text.as_bytes()).unwrap();
        assert_eq!((last.len(), last[0].as_str()), (LAST_LINES, "line 70"));
        assert_eq!(follow(&b"caf\xe9"[..]).unwrap().len(), 1);
    }
}
