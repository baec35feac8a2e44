//! RUN.

use super::*;

#[test]
fn a_step_is_run_with_the_settings_so_far() {
    let mut bench = Bench::new();
    let request = BuildRequest {
        args: HashMap::from([("VERSION".to_owned(), "9".to_owned())]),
        ..bench.request()
    };
    let dockerfile = "FROM base\nARG VERSION=1\nARG UNSET\nARG TARGETARCH\nENV A=b\n\
        USER web:web\nWORKDIR /w\nRUN one \\\n # comment\n two\nRUN [\"exec\", \"form $A\"]\n\
        SHELL [\"/bin/bash\", \"-c\"]\nRUN <<EOF\nthree\nfour\nEOF\n";
    bench.try_build(dockerfile, request).unwrap();
    let steps = bench.runner.steps.borrow();
    assert_eq!(steps[0].args, ["/bin/sh", "-c", "one  two"]);
    assert_eq!(steps[0].env, ["A=b", "TARGETARCH=amd64", "VERSION=9"]);
    assert_eq!((steps[0].cwd.as_str(), steps[0].user.as_str()), ("/w", "web:web"));
    assert_eq!(steps[1].args, ["exec", "form $A"]);
    assert_eq!(steps[2].args, ["/bin/bash", "-c", "three\nfour\n"]);
}

#[test]
fn a_here_document_is_a_script() {
    let mut bench = Bench::new();
    bench.build("FROM base\nRUN <<END\none '<<x'\ntwo\nEND\nRUN [\"a\", \"<<b\"]\nRUN cat <<<c\n");
    let steps = bench.runner.steps.borrow();
    assert_eq!(steps[0].args, ["/bin/sh", "-c", "one '<<x'\ntwo\n"]);
    assert_eq!(steps[1].args, ["a", "<<b"]);
    assert_eq!(steps[2].args, ["/bin/sh", "-c", "cat <<<c"]);
}

#[test]
fn here_documents_beside_a_command_are_the_shell_s() {
    let mut bench = Bench::new();
    bench.build(
        "FROM base\nRUN cat <<A >/f && cat <<-'B' >/g\n$x\nA\n\ttwo\n\tB\nRUN <<-E\n\tthree\n\tE\n\
         RUN <<E\n#!/bin/awk -f\nBEGIN {}\nE\nRUN python3 <<EOF\nprint(1)\nEOF\n",
    );
    let steps = bench.runner.steps.borrow();
    let script = |number: usize| steps[number].args.last().unwrap().as_str();
    assert_eq!(script(0), "cat <<A >/f && cat <<-'B' >/g\n$x\nA\n\ttwo\nB\n");
    assert_eq!(script(1), "three\n");
    assert_eq!((steps[2].args.len(), script(2)), (1, "/dev/pipes/E"));
    assert_eq!(steps[2].mounts[0].target, "/dev/pipes/E");
    assert_eq!(script(3), "python3 <<EOF\nprint(1)\nEOF\n");
}

#[test]
fn a_command_may_have_less_network_but_not_more() {
    let mut bench = Bench::new();
    let request = BuildRequest { host_network: true, ..bench.request() };
    let dockerfile = "FROM base\nRUN --network=none a\nRUN --network=host b\nRUN c\n";
    bench.try_build(dockerfile, request).unwrap();
    let shares: Vec<bool> = bench.runner.steps.borrow().iter().map(|s| s.host_network).collect();
    assert_eq!(shares, [false, true, true]);
    assert!(bench.fails("FROM base\nRUN --network=host b\n").contains("the host's network"));
}
