//! `isolab top`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use isolab_instances::Catalogue;

use crate::format::{print_table, printable};

/// List the processes in an instance.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab top web")]
pub struct Args {
    /// Its name, or its id or the beginning of it.
    instance: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let heads = ["USER", "PID", "PPID", "HPID", "S", "RSS", "ELAPSED", "TIME", "COMMAND"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for it in catalogue.processes(&catalogue.find(&args.instance)?)? {
        lines.push(vec![
            it.uid.to_string(),
            it.pid.to_string(),
            it.parent.to_string(),
            it.host_pid.map_or("-".to_owned(), |pid| pid.to_string()),
            it.state.to_string(),
            isolab_command::format::bytes(it.resident),
            clock(it.elapsed),
            clock(it.cpu_time),
            printable(&it.command.join(" "), usize::MAX),
        ]);
    }
    print_table(&lines);
    Ok(ExitCode::SUCCESS)
}

/// `1:02:03` or `02:03`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}
