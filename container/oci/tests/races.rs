//! What engines do to a container at once, and what is left of it then: nothing. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use support::Bundle;

/// Processes whose command line names this bundle's container.
fn processes(bundle: &Bundle) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: fs::DirEntry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        line.contains(&bundle.id).then(|| line.replace('\0', " "))
    };
    entries.filter_map(line).collect()
}

#[test]
fn a_create_that_is_killed_leaves_nothing_that_runs() {
    let bundle = Bundle::new("exec sleep 1000");
    let folder = bundle.dir.path().to_str().unwrap().to_owned();
    let mut finished = 0;
    for delay in 0..24u64 {
        let mut create = bundle.command(&["create", "--bundle", &folder, &bundle.id]);
        create.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = create.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(delay * 1500));
        let _ = running.kill();
        finished += u32::from(running.wait().unwrap().success());
        // Both take what is left of one that was not finished: its folder and its cgroups.
        match delay % 2 {
            0 => drop(bundle.oci(&["list"]).fine()),
            _ => drop(bundle.oci(&["delete", "--force", &bundle.id]).fine()),
        }
        if bundle.oci(&["state", &bundle.id]).code == 0 {
            bundle.oci(&["delete", "--force", &bundle.id]).fine();
        }
        bundle.is_gone();
        bundle.wait_for("its processes end", || processes(&bundle).is_empty());
    }
    eprintln!("{finished} of 24 were quicker than their end");
    // Whoever comes next under that name finds all in order.
    bundle.create().fine();
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
    bundle.is_gone();
}

#[test]
fn a_container_can_be_deleted_while_it_ends_and_entered_while_it_stops() {
    for round in 0..8 {
        let bundle = Bundle::new("exec sleep 1000");
        bundle.create().fine();
        bundle.oci(&["start", &bundle.id]).fine();
        std::thread::scope(|scope| {
            let exec = scope.spawn(|| bundle.oci(&["exec", &bundle.id, "true"]));
            if round % 2 == 0 {
                bundle.oci(&["kill", &bundle.id, "KILL"]).fine();
            }
            let delete = bundle.oci(&["delete", "--force", &bundle.id]);
            assert_eq!(delete.code, 0, "{delete:?}");
            // It was there in time, or it was not, and says so.
            let exec = exec.join().unwrap();
            assert!([0, 1, 137].contains(&exec.code), "{exec:?}");
            assert_eq!(exec.code == 1, !exec.errors.is_empty(), "{exec:?}");
        });
        bundle.is_gone();
    }
}

#[test]
fn a_hundred_at_once_leave_nothing() {
    let bundle = Bundle::new("true");
    let folder = bundle.dir.path().to_str().unwrap();
    std::thread::scope(|scope| {
        for worker in 0..10 {
            let (bundle, folder) = (&bundle, folder);
            scope.spawn(move || {
                for number in 0..10 {
                    let id = format!("{}-{worker}-{number}", bundle.id);
                    let run = bundle.oci(&["run", "--bundle", folder, &id]);
                    assert_eq!((run.code, run.errors.as_str()), (0, ""), "{id}");
                }
            });
        }
    });
    assert_eq!(processes(&bundle), [""; 0]);
    bundle.is_gone();
}
