//! The files of images that others made, as a workload sees them.

use std::process::Command;

use isolab_tests::odd_image::{LIST_FILES, MAKERS, Made, NOT_THE_IMAGES};
use isolab_tests::{Run, install_isolab, text, tool};

/// Leaves the images for the test `files`, which looks at them at every level.
#[test]
fn images_of_every_maker_have_all_their_files() {
    for (maker, make) in MAKERS {
        let work = tempfile::tempdir().unwrap();
        let made: Made = make(work.path());
        let sandbox = made.load();
        for level in ["process", "container"] {
            made.check(&sandbox, maker, &["--isolation", level]);
        }
        made.keep(maker);
    }
}

/// Without root all files are the caller's own, whom the container's root stands for. What only
/// root can make is left out: an empty file stands for a device, as in podman's storage.
#[test]
fn somebody_without_rights_sees_the_same_but_for_owners_and_devices() {
    let work = tempfile::tempdir().unwrap();
    let (maker, make) = MAKERS[0];
    let made = make(work.path());
    let dir = tempfile::tempdir().unwrap();
    let isolab = install_isolab(dir.path());
    tool("install", &["-m", "644", text(&made.archive), text(&dir.path().join("odd.tar"))]);
    tool("install", &["-d", "-o", "65534", "-g", "65534", text(&dir.path().join("data"))]);
    tool("chmod", &["755", text(dir.path())]);
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&isolab);
        command.args(arguments).current_dir(dir.path());
        command.env("XDG_DATA_HOME", dir.path().join("data")).env_remove("XDG_RUNTIME_DIR");
        command
    };
    let nobody = |arguments: &[&str]| Run::new(as_nobody(arguments)).finish().success();
    nobody(&["image", "load", "--unpack", "--tag", "odd", "odd.tar"]);
    let seen = nobody(&[&["run", "odd", LIST_FILES, "/"], &NOT_THE_IMAGES[..]].concat());
    let seen: Vec<String> = seen.lines().filter_map(without_rights).collect();
    let wanted: Vec<String> = made.listing.lines().filter_map(without_rights).collect();
    assert_eq!(seen, wanted, "{maker}");
    assert!(
        seen.iter().all(|line| line.split(' ').nth(2) == Some("0:0")) && seen.len() > 30,
        "{seen:?}"
    );
    let other = Run::new(as_nobody(&["run", "-u", "1234", "odd", LIST_FILES])).finish();
    other.fails_with(125, &["user", "without root"]);
    // Nothing is left that only root could remove.
    nobody(&["image", "rm", "odd"]);
}

/// A line of a listing as it is for somebody without rights.
fn without_rights(line: &str) -> Option<String> {
    let mut fields: Vec<&str> = line.split(' ').collect();
    if ["/block", "/null"].contains(&fields[0]) {
        return None;
    }
    fields[2] = "0:0";
    fields.retain(|field| !field.starts_with("security."));
    Some(fields.join(" "))
}
