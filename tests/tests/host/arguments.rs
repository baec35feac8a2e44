//! What `isolab run` makes of its arguments, and of how it was called.

use std::process::Command;

use isolab_tests::{Run, Sandbox, isolab_path, text};

#[test]
fn a_wrong_call_ends_with_a_code_that_is_not_the_command_s() {
    let sandbox = Sandbox::with_busybox();
    for words in [
        &["run"][..],
        &["run", "--no-such-option", "busybox"],
        &["run", "--memory", "12X", "busybox", "true"],
        &["run", "--pids-limit", "-2", "busybox", "true"],
        &["run", "--isolation", "none", "busybox", "true"],
        &["run", "--name", "", "busybox", "true"],
        &["run", "--name", ".hidden", "busybox", "true"],
        &["run", "--hostname", "two words", "busybox", "true"],
    ] {
        assert_eq!(sandbox.isolab(words).finish().code(), Some(125), "{words:?}");
    }
    assert!(sandbox.isolab(&["run", "--help"]).finish().success().contains("--isolation"));
}

#[test]
fn podman_s_words_for_no_limit_are_no_limit() {
    let sandbox = Sandbox::with_busybox();
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.1 & done; wait; echo $HOSTNAME";
    for limit in [
        &["--memory", "0"][..],
        &["--pids-limit", "-1"],
        &["--pids-limit=-1"],
        &["--pids-limit", "0"],
        &["--cpus", "0"],
    ] {
        let words = [&["run", "--name", "free"], limit, &["busybox", "sh", "-c", script]].concat();
        assert_eq!(sandbox.isolab(&words).finish().success(), "free\n", "{limit:?}");
    }
}

#[test]
fn a_host_name_that_is_empty_is_as_if_it_was_not_given() {
    let sandbox = Sandbox::with_busybox();
    let words = ["run", "--name", "given", "--hostname", "", "busybox", "hostname"];
    assert_eq!(sandbox.isolab(&words).finish().success(), "given\n");
}

#[test]
fn who_ignores_the_end_of_children_learns_the_command_s_code() {
    let sandbox = Sandbox::with_busybox();
    for level in ["process", "container"] {
        let mut shell = Command::new("sh");
        let script =
            "trap '' CHLD; exec \"$0\" run --isolation $1 busybox sh -c 'true & wait; exit 7'";
        shell.args(["-c", script]).arg(isolab_path()).arg(level);
        let run = Run::new(shell).env("XDG_DATA_HOME", text(sandbox.data())).finish();
        assert_eq!(run.code(), Some(7), "{run:?}");
    }
}
