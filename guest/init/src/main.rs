//! PID 1 of every guest: prepares the machine, runs the workload, tells the host how it ended.

mod control;
mod machine;
mod network;
mod root;
mod serve;
mod workload;

use std::fs;
use std::path::Path;

use isolab_protocol::{Frame, GUEST_DIR, Marker, WORKLOAD_FILE, Workload};
use nix::sys::reboot::{RebootMode, reboot};

use crate::control::Control;

/// What init gives up with: one line that names the step and the cause.
type Failure = String;

fn main() {
    machine::mark(Marker::Init);
    let mut control = None;
    if let Err(failure) = run(&mut control) {
        match &mut control {
            Some(control) => control.send(&Frame::Failed(failure)),
            // The console is all there is before the control channel is open.
            None => eprintln!("isolab init: {failure}"),
        }
    }
    drop(control); // waits until the host has read everything
    // With `reboot=k` this ends every kind of machine; the VMM takes it for the end.
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    eprintln!("isolab init: reboot: {error}");
}

fn run(control: &mut Option<Control>) -> Result<(), Failure> {
    let workload = read_workload()?;
    for module in &workload.modules {
        machine::load_module(Path::new(module))?;
    }
    machine::mount_devices()?;
    // Unpacked into RAM, which is the workload's.
    fs::remove_dir_all(GUEST_DIR).map_err(|e| format!("remove {GUEST_DIR}: {e}"))?;
    let image = root::enter(&workload.root, &workload.name_files)?;
    machine::mount_api_filesystems()?;
    root::read_ahead(&image);
    let control = control.insert(Control::open()?);
    machine::set_hostname(&workload.hostname)?;
    network::bring_up_loopback()?;
    if let Some(interface) = &workload.network {
        network::configure(interface)?;
    }
    serve::run_workload(&workload, control)
}

fn read_workload() -> Result<Workload, Failure> {
    let text = fs::read(WORKLOAD_FILE).map_err(|e| format!("read {WORKLOAD_FILE}: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("parse {WORKLOAD_FILE}: {e}"))
}
