//! `isolab vm`: the virtual machine monitor by itself, without images and levels.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use isolab_vmm::config::{DeviceSet, FirmwareTables, InitrdPart, MachineConfig, SerialPort};
use isolab_vmm::machine::{Exit, Machine};

use crate::console::{self, Console};
use crate::signals;

/// Run virtual machines directly.
#[derive(Debug, Args)]
pub struct Vm {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<Run>),
}

/// Boot a Linux kernel, with COM1 on this terminal.
///
/// Ctrl-a x ends the machine, Ctrl-a h tells more. The exit status is 0 when the guest powers off
/// or reboots.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    isolab vm run --kernel /boot/vmlinuz --initrd initramfs.cpio.gz --memory 512M --cpus 2")]
struct Run {
    /// ELF vmlinux, or bzImage of any usual compression.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Initial RAM file system; several are concatenated.
    #[arg(long, value_name = "FILE")]
    initrd: Vec<PathBuf>,
    /// Kernel command line.
    #[arg(long, value_name = "STRING", default_value = "console=ttyS0 reboot=k panic=-1")]
    cmdline: String,
    /// Guest RAM, in bytes or with K, M, G or T.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    memory: u64,
    /// Virtual CPUs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Which machine the guest sees.
    #[arg(long, value_enum, default_value_t = Devices::Virtio)]
    devices: Devices,
    /// Describe the machine by MP tables instead of ACPI, for kernels without ACPI.
    #[arg(long)]
    mp_tables: bool,
    /// Where decompressed kernels are kept.
    #[arg(long, value_name = "DIR")]
    kernel_cache: Option<PathBuf>,
    /// At the end, print how often and why the guest left for user space (to standard error).
    #[arg(long)]
    stats: bool,
    /// Format of the statistics.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the times of events, in nanoseconds of CLOCK_MONOTONIC, to this file as JSON.
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Devices {
    /// Paravirtual: KVM's own features.
    Virtio,
    /// A physical PC: no hint of a hypervisor.
    Emulated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs `isolab vm`.
///
/// # Errors
/// What the operator should read.
pub fn run(vm: Vm) -> Result<ExitCode> {
    match vm.command {
        Command::Run(options) => run_machine(*options),
    }
}

fn run_machine(options: Run) -> Result<ExitCode> {
    // Before any thread exists, so that all of them inherit the mask.
    let signals = signals::block().context("cannot block signals")?;
    let timings = options.timings.as_ref().map(|path| {
        File::create(path).with_context(|| format!("cannot create {}", path.display()))
    });
    let timings = timings.transpose()?;

    let console = Console::open().context("cannot set up the terminal")?;
    let (input, keys) = console.input().context("cannot read standard input")?;
    let config = MachineConfig {
        initrd: options.initrd.iter().cloned().map(InitrdPart::File).collect(),
        cmdline: options.cmdline.clone(),
        memory: options.memory,
        cpus: options.cpus,
        devices: match options.devices {
            Devices::Virtio => DeviceSet::Virtio,
            Devices::Emulated => DeviceSet::Emulated,
        },
        tables: if options.mp_tables { FirmwareTables::Mp } else { FirmwareTables::Acpi },
        serial: [
            Some(SerialPort {
                output: Box::new(console::Output),
                gather: true,
                input: Some(input),
            }),
            None,
            None,
            None,
        ],
        kernel_cache: options.kernel_cache.clone(),
        ..MachineConfig::new(&options.kernel)
    };
    let mut machine = Machine::new(config)?;
    let handle = machine.handle();
    if let Some(keys) = keys {
        let handle = handle.clone();
        keys.watch(move || handle.stop()).context("cannot watch the keyboard")?;
    }
    signals.on_arrival(move || handle.stop()).context("cannot wait for signals")?;

    let exit = machine.run();
    drop(console);
    let exit = exit?;
    report(&options, &exit, timings)?;
    // Without unwinding: closing the VM takes the kernel tens of milliseconds.
    std::process::exit(0);
}

fn report(options: &Run, exit: &Exit, timings: Option<File>) -> Result<()> {
    if options.stats {
        let mut out = io::stderr().lock();
        match options.format {
            Format::Table => write!(out, "{}", exit.stats)?,
            Format::Json => writeln!(out, "{}", serde_json::to_string(&exit.stats)?)?,
        }
    }
    if let Some(mut file) = timings {
        writeln!(file, "{}", serde_json::to_string(&exit.timeline)?)
            .context("cannot write the timings")?;
    }
    Ok(())
}

/// `512M`, `4G`, `1048576`: powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_uppercase();
    let shift = match unit.trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("unknown unit `{unit}`; use K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a size like 512M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        for bad in ["", "M", "1X", "-1", "1.5G", "99999999T", "10 M"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
