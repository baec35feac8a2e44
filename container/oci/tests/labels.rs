//! AppArmor, with a profile of the test's own, where the kernel has it; the emulated host's does. That its absence is an
//! error, and SELinux's, `features` tests. Needs root.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use support::Bundle;

/// A profile in the kernel, which complains of everything and forbids nothing.
struct Profile {
    securityfs: TempDir,
    name: String,
}

/// The kinds of what a profile is made of (security/apparmor/include/policy_unpack.h, `enum aa_code`).
const U32: u8 = 2;
const NAME: u8 = 4;
const STRING: u8 = 5;
const STRUCT: u8 = 7;
const STRUCT_END: u8 = 8;

fn text(kind: u8, text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len() + 1).unwrap().to_le_bytes();
    [&[kind], &length[..], text.as_bytes(), &[0]].concat()
}

fn number(number: u32) -> Vec<u8> {
    [&[U32], &number.to_le_bytes()[..]].concat()
}

/// What apparmor_parser(8) would make of `profile NAME flags=(complain) {}`: header, and `unpack_profile`'s parts that are
/// not optional. There is no rule in it, so that no automaton is needed.
fn compiled(name: &str) -> Vec<u8> {
    let (abi, complain) = (7, 1);
    let parts = [
        [text(NAME, "version"), number(abi)].concat(),
        [text(NAME, "profile"), vec![STRUCT], text(STRING, name)].concat(),
        // Kind, mode, audit.
        [
            text(NAME, "flags"),
            vec![STRUCT],
            number(0),
            number(complain),
            number(0),
            vec![STRUCT_END],
        ]
        .concat(),
        // Capabilities: allowed, audited, quiet, and those of an old kernel.
        [number(0), number(0), number(0), number(0)].concat(),
        vec![STRUCT_END],
    ];
    parts.concat()
}

impl Profile {
    /// None where the kernel has no AppArmor.
    fn load() -> Option<Self> {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y')) {
            return None;
        }
        let securityfs = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "securityfs", "securityfs"]).arg(securityfs.path());
        assert!(mount.status().unwrap().success());
        let profile = Profile { securityfs, name: format!("isolab-test-{}", std::process::id()) };
        fs::write(profile.file(".load"), compiled(&profile.name)).unwrap();
        Some(profile)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.securityfs.path().join("apparmor").join(name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let removed = fs::write(self.file(".remove"), [self.name.as_bytes(), &[0]].concat());
        let unmounted = Command::new("umount").arg(self.securityfs.path()).status();
        if !std::thread::panicking() {
            assert!(removed.is_ok() && unmounted.unwrap().success());
        }
    }
}

#[test]
fn the_process_and_those_that_join_it_have_the_profile() {
    let Some(profile) = Profile::load() else {
        assert!(!Path::new("/sys/kernel/security/apparmor").exists());
        eprintln!("left out: this kernel has no AppArmor");
        return;
    };
    let current = "read label </proc/self/attr/current; echo $label";
    let bundle = Bundle::new(&format!("({current}) >/tmp/label; exec sleep 1000"));
    // The kernel follows what a complaining profile executes by a name below the profile's.
    let is_ours = |label: &str| {
        let label = label.trim();
        label.starts_with(&profile.name) && label.ends_with("(complain)")
    };
    bundle.configure(|spec| spec["process"]["apparmorProfile"] = json!(profile.name));
    bundle.create().fine();
    bundle.oci(&["start", &bundle.id]).fine();
    let label = bundle.path("rootfs/tmp/label");
    let seen = || fs::read_to_string(&label).unwrap_or_default();
    bundle.wait_for("it tells its label", || seen().ends_with('\n'));
    assert!(is_ours(&seen()), "{}", seen());
    let exec = bundle.oci(&["exec", &bundle.id, "sh", "-c", current]).fine();
    assert!(is_ours(&exec), "{exec}");
    bundle.oci(&["delete", "--force", &bundle.id]).fine();

    let unconfined = Bundle::new(current);
    let folder = unconfined.dir.path().to_str().unwrap();
    let words = ["run", "--bundle", folder, &unconfined.id];
    assert_eq!(unconfined.oci(&words).fine(), "unconfined\n");
    // One that is not loaded is not passed over.
    unconfined.configure(|spec| spec["process"]["apparmorProfile"] = json!("no-such-profile"));
    unconfined.oci(&words).fails(1, "apparmorProfile");
    unconfined.is_gone();
}
