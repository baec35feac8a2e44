//! What an image, or root in a container, can do with device nodes: nothing. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use isolab_container::oci::{Capability, LinuxDevice, LinuxDeviceCgroup};
use isolab_container::{ContainerConfig, RootFilesystem};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use support::{Fixture, run, run_host};

/// What stands for the host's devices: /dev/tty1 and /dev/loop0, whose drivers ask for no capability, so that nothing
/// but the walls here keeps root out.
const TERMINAL: (u64, u64) = (4, 1);
const DISK: (u64, u64) = (7, 0);

/// Tries to read and to write each node, and says so of what could be opened.
const OPEN_ALL: &str = "for node in terminal disk null; do \
        (exec 3<$D/$node) 2>/dev/null && echo read $node; (exec 3<>$D/$node) 2>/dev/null && echo wrote $node; \
    done; echo done";

/// A fixture whose image has the nodes, and a /dev/null beside them that anybody could use.
fn hostile() -> Fixture {
    let fixture = Fixture::new();
    for (name, kind, (major, minor)) in [
        ("terminal", SFlag::S_IFCHR, TERMINAL),
        ("disk", SFlag::S_IFBLK, DISK),
        ("null", SFlag::S_IFCHR, (1, 3)),
    ] {
        let path = fixture.path("rootfs").join(name);
        mknod(&path, kind, Mode::from_bits_truncate(0o666), makedev(major, minor)).unwrap();
    }
    fixture
}

#[test]
fn nodes_of_an_image_cannot_be_opened_at_any_level() {
    let script = OPEN_ALL.replace("$D", "");
    for overlay in [true, false] {
        let fixture = hostile();
        let rootfs = || match overlay {
            true => fixture.overlay(),
            false => RootFilesystem::Directory(fixture.path("rootfs")),
        };
        let mut config = fixture.config(&["sh", "-c", &script]);
        config.rootfs = rootfs();
        assert_eq!(run(config).unwrap().output, "done\n", "container, overlay: {overlay}");
        let mut config = fixture.config(&["sh", "-c", &script]);
        config.rootfs = rootfs();
        config.spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
        assert_eq!(run(config).unwrap().output, "done\n", "read-only, overlay: {overlay}");
        for host_filesystems in [true, false] {
            let mut config = fixture.host_config(&["sh", "-c", &script]);
            config.rootfs = rootfs();
            config.host_filesystems = host_filesystems;
            assert_eq!(run_host(config).unwrap().output, "done\n", "process, overlay: {overlay}");
        }
    }
}

/// A root that may make nodes, as Docker's default has it.
fn with_mknod(mut config: ContainerConfig) -> ContainerConfig {
    let process = config.spec.process_mut().as_mut().unwrap();
    let mut sets = process.capabilities().clone().unwrap();
    let mut held = sets.bounding().clone().unwrap();
    held.insert(Capability::Mknod);
    sets.set_bounding(Some(held.clone()));
    sets.set_permitted(Some(held.clone()));
    sets.set_effective(Some(held));
    process.set_capabilities(Some(sets));
    config
}

fn rule(allow: bool, kind: &str, major: i64, minor: i64) -> LinuxDeviceCgroup {
    let rule = serde_json::json!({
        "allow": allow, "type": kind, "major": major, "minor": minor, "access": "rwm"
    });
    serde_json::from_value(rule).unwrap()
}

#[test]
fn nodes_that_the_container_makes_are_held_by_the_device_cgroup() {
    let fixture = Fixture::new();
    let make = "cd /dev && mknod terminal c 4 1 && mknod disk b 7 0 && rm -f null && \
                mknod null c 1 3 && echo made; ";
    let script = make.to_owned() + &OPEN_ALL.replace("$D", "/dev");
    let shell = || with_mknod(fixture.config(&["sh", "-c", &script]));
    let everybodys = "made\nread null\nwrote null\ndone\n";
    assert_eq!(run(shell()).unwrap().output, everybodys);

    // As configured: what is allowed besides, and what is denied again.
    let mut config = shell();
    let resources = config.spec.linux_mut().as_mut().unwrap().resources_mut().as_mut().unwrap();
    resources.set_devices(Some(vec![
        rule(false, "a", -1, -1),
        rule(true, "c", 4, 1),
        rule(true, "b", 7, 0),
        rule(false, "b", 7, 0),
    ]));
    let expected = "made\nread terminal\nwrote terminal\nread null\nwrote null\ndone\n";
    assert_eq!(run(config).unwrap().output, expected);
    // And all of it, as --privileged has it: what the rest of the test relies on.
    let mut config = shell();
    let resources = config.spec.linux_mut().as_mut().unwrap().resources_mut().as_mut().unwrap();
    resources.set_devices(Some(vec![rule(true, "a", -1, -1)]));
    let output = run(config).unwrap().output;
    let opened = output.contains("read terminal") && output.contains("read disk");
    assert!(opened, "is there a virtual terminal and a loop device (modprobe loop)? {output}");
}

fn device(path: &str, major: i64, minor: i64) -> LinuxDevice {
    let node = serde_json::json!({
        "path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o640, "uid": 3, "gid": 4
    });
    serde_json::from_value(node).unwrap()
}

#[test]
fn configured_devices_can_be_used_wherever_they_are() {
    let fixture = Fixture::new();
    let script = "for node in /dev/terminal /opt/made/terminal; do stat -c '%n %a %u:%g %t:%T' $node; \
                  (exec 3<$node) && echo opened; done; ls /opt/made; echo x >/dev/null && echo null";
    let expected = "/dev/terminal 640 3:4 4:1\nopened\n/opt/made/terminal 640 3:4 4:1\nopened\nterminal\nnull\n";
    // The second has no /dev of its own: its nodes lie over files of the root.
    for own_dev in [true, false] {
        let mut config = fixture.config(&["sh", "-c", script]);
        let devices = vec![device("/dev/terminal", 4, 1), device("/opt/made/terminal", 4, 1)];
        config.spec.linux_mut().as_mut().unwrap().set_devices(Some(devices));
        if !own_dev {
            let mounts = config.spec.mounts_mut().as_mut().unwrap();
            mounts.retain(|mount| !mount.destination().starts_with("/dev"));
        }
        assert_eq!(run(config).unwrap().output, expected, "own /dev: {own_dev}");
    }
    assert_eq!(support::mounts_below(fixture.dir.path()), Vec::<String>::new());
}
