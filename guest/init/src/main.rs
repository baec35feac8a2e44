//! PID 1 of every guest: prepares the machine, runs the workload, tells the host how it ended.

mod channel;
mod line;
mod machine;
mod mailbox;
mod mounts;
mod network;
mod process;
mod rights;
mod root;
mod serve;
mod services;
mod spawn;

use std::fs;
use std::path::Path;

use isolab_link as _;
use isolab_protocol::{FromGuest, GUEST_DIR, Marker, WORKLOAD, WORKLOAD_FILE, Workload};
use nix::sys::reboot::{RebootMode, reboot};

use crate::channel::Channel;

/// What init gives up with: one line that names the step and the cause.
type Failure = String;

fn main() {
    machine::mark(Marker::Init);
    let mut channel = None;
    if let Err(failure) = run(&mut channel) {
        match &mut channel {
            Some(channel) => channel.send(WORKLOAD, FromGuest::Failed(failure)),
            // The console is all there is before the control channel is open.
            None => eprintln!("isolab init: {failure}"),
        }
    }
    if let Some(channel) = channel {
        channel.finish();
    }
    // With `reboot=k` this ends every kind of machine; the VMM takes it for the end.
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    eprintln!("isolab init: reboot: {error}");
}

fn run(channel: &mut Option<Channel>) -> Result<(), Failure> {
    let mut workload = read_workload()?;
    for module in &workload.modules {
        machine::load_module(Path::new(module))?;
    }
    machine::mount_devices()?;
    // Unpacked into RAM, which is the workload's.
    fs::remove_dir_all(GUEST_DIR).map_err(|e| format!("remove {GUEST_DIR}: {e}"))?;
    let volumes = mounts::find_disks(&mut workload)?;
    let files = mounts::hold_files(&mut workload)?;
    let image = root::enter(&workload.root, &workload.name_files)?;
    machine::mount_api_filesystems(&workload.kernel)?;
    root::read_ahead(&image);
    let channel = channel.insert(Channel::open(&workload.line)?);
    mounts::mount_all(&workload, &volumes)?;
    drop(files);
    machine::set_hostname(&workload.hostname)?;
    network::bring_up_loopback()?;
    network::configure(&workload.interfaces)?;
    machine::set_sysctls(&workload.kernel)?;
    let lasts = workload.root.scratch_lasts;
    serve::run_workload(workload.process, &workload.mounts, lasts, channel)
}

fn read_workload() -> Result<Workload, Failure> {
    let text = fs::read(WORKLOAD_FILE).map_err(|e| format!("read {WORKLOAD_FILE}: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("parse {WORKLOAD_FILE}: {e}"))
}
