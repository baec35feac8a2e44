//! The log: nothing unless it is asked for, on standard error, and never in the way.

use std::process::Command;

use isolab_tests::{Run, Sandbox, isolab_path, text};
use serde_json::Value;

/// What a start is made of, each with how long it took.
const STEPS: [&str; 5] = ["image", "create", "start", "wait", "remove"];

#[test]
fn a_start_is_explained_step_by_step_and_only_when_asked_for() {
    let sandbox = Sandbox::with_busybox();
    let run =
        |options: &[&str]| sandbox.isolab(&[options, &["run", "busybox", "echo", "out"]].concat());
    assert_eq!(run(&[]).finish().stderr, "");

    let json = |run: Run| -> Vec<Value> {
        let done = run.finish();
        assert_eq!(done.stdout, "out\n", "{done:?}");
        let lines = done.stderr.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    };
    let steps = |lines: &[Value]| -> Vec<String> {
        let closed = lines.iter().filter(|line| line["fields"]["message"] == "close");
        closed
            .inspect(|line| assert!(line["fields"]["time.busy"].is_string(), "{line}"))
            .filter_map(|line| Some(line["span"]["name"].as_str()?.to_owned()))
            .collect()
    };
    let lines = json(run(&["-v", "--log-format", "json"]));
    assert_eq!(steps(&lines), STEPS);
    let reached: Vec<&Value> =
        lines.iter().filter_map(|line| line["fields"].get("milestone")).collect();
    assert_eq!(reached.first(), Some(&&Value::from("CommandStarted")), "{lines:?}");
    // More of them, and those of one crate alone.
    assert!(steps(&json(run(&["-vv", "--log-format", "json"]))).contains(&"root".to_owned()));
    let only = run(&["--log-format", "json"]).env("ISOLAB_LOG", "isolab_isolation=debug");
    let only = json(only);
    assert!(!only.is_empty());
    let target = |line: &Value| line["target"].as_str().unwrap_or_default().to_owned();
    assert!(only.iter().all(|line| target(line).starts_with("isolab_isolation")), "{only:?}");

    // The fetch is another executable's, which is told to log as we do.
    let fetch = ["-v", "--log-format", "json", "run", "--insecure", "localhost:1/absent"];
    let done = sandbox.isolab(&fetch).finish();
    let lines: Vec<Value> =
        done.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(steps(&lines).contains(&"pull".to_owned()), "{done:?}");

    let done = run(&["-v"]).finish();
    assert!(STEPS.iter().all(|step| done.stderr.contains(step)), "{}", done.stderr);
    assert!(!done.stderr.contains('\u{1b}'), "{}", done.stderr);
    run(&[]).env("ISOLAB_LOG", "loud=quiet").finish().fails_with(125, &["ISOLAB_LOG=loud=quiet"]);
    // The codes below 125 are the command's, wherever the options stand.
    assert_eq!(sandbox.isolab(&["-v", "run", "--no-such-option"]).finish().code(), Some(125));
}

#[test]
fn a_log_that_nobody_reads_hinders_nothing() {
    let sandbox = Sandbox::with_busybox();
    for stream in ["2>&-", "2>/dev/full"] {
        let mut shell = Command::new("sh");
        let script = format!("exec \"$0\" -vvv run busybox echo out {stream}");
        shell.args(["-c", &script]).arg(isolab_path()).env("XDG_DATA_HOME", text(sandbox.data()));
        assert_eq!(Run::new(shell).finish().success(), "out\n", "{stream}");
    }
}
