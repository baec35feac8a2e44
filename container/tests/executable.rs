//! What an image whose command leads to `/proc/self/exe` gets to run: never the runtime (CVE-2019-5736). Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use isolab_container::oci::Capability;

use support::{Fixture, run, run_host};

#[test]
fn proc_self_exe_is_no_program_by_whatever_way() {
    let fixture = Fixture::new();
    let root = fixture.path("rootfs");
    symlink("/proc/self/exe", root.join("bin/link")).unwrap();
    // Named like the trampoline's first argument.
    symlink("/proc/self/exe", root.join("bin/5")).unwrap();
    fs::write(root.join("bin/script"), "#!/proc/self/exe --argument\n").unwrap();
    fs::set_permissions(root.join("bin/script"), PermissionsExt::from_mode(0o755)).unwrap();
    for command in ["/proc/self/exe", "link", "5", "script"] {
        // Arguments of the form that the trampoline takes.
        for arguments in [&[command][..], &[command, "3", "/bin/true", "", "true"]] {
            let container = run(fixture.config(arguments)).unwrap();
            let process = run_host(fixture.host_config(arguments)).unwrap();
            for outcome in [container, process] {
                assert_eq!(outcome.status.code(), 126, "{command}: {outcome:?}");
                assert!(outcome.output.contains("leads to /proc/self/exe"), "{outcome:?}");
            }
        }
    }
}

#[test]
fn two_executions_leave_the_rights_that_one_would() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["cat", "/proc/self/status"]);
    let process = config.spec.process_mut().as_mut().unwrap();
    process.user_mut().set_uid(1000).set_gid(1001).set_additional_gids(Some(vec![7]));
    let mut sets = process.capabilities().clone().unwrap();
    let bind: std::collections::HashSet<_> = [Capability::NetBindService].into();
    sets.set_inheritable(Some(bind.clone()));
    sets.set_ambient(Some(bind));
    process.set_capabilities(Some(sets));
    let output = run(config).unwrap().output;
    let is = |line: &str| assert!(output.contains(line), "no {line:?} in {output}");
    is("Uid:\t1000\t1000\t1000\t1000");
    is("Gid:\t1001\t1001\t1001\t1001");
    is("Groups:\t7 ");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        is(&format!("{set}:\t0000000000000400"));
    }
    is("NoNewPrivs:\t1");
    is("SigBlk:\t0000000000000000");
    // Nothing of the runtime's is open, and the process is its own again.
    let outcome = fixture.shell("ls -l /proc/self/fd | grep -v pipe: ; ls -ld /proc/self/fd");
    assert!(!outcome.output.contains("memfd") && !outcome.output.contains("socket"), "{outcome:?}");
}
