//! What Dockerfiles are made of, as the commands in them see it.

use super::*;

/// Builds it, and gives what `script` prints in the image.
fn seen(dockerfile: &str, script: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "Dockerfile", dockerfile);
    let sandbox = Sandbox::with_busybox();
    sandbox.isolab(&["image", "build", "-t", "app", text(dir.path())]).finish().success();
    sandbox.isolab(&["run", "-u", "0", "app", "sh", "-c", script]).finish().success()
}

#[test]
fn here_documents_reach_the_command() {
    let dockerfile = r#"FROM busybox
ARG WHO=you
RUN cat <<A >/a && cat <<-'B' >/b
one $((1+1)) $WHO
A
	two $x
	B
RUN <<EOF
set -e
echo three >/c
EOF
RUN <<SCRIPT
#!/bin/busybox sh
echo "$0" >/d
SCRIPT
USER nobody
RUN <<SCRIPT
#!/bin/sh
id -u >/tmp/e
SCRIPT
COPY <<f <<g /files/
in f
f
in g
g
"#;
    let expected = "one 2 you\ntwo $x\nthree\n/dev/pipes/SCRIPT\n65534\nin f\nin g\n";
    assert_eq!(seen(dockerfile, "cat /a /b /c /d /tmp/e /files/f /files/g"), expected);
}

#[test]
fn times_are_kept_and_a_working_folder_is_the_user_s() {
    let dockerfile = "FROM busybox\nRUN mkdir /x && touch -d @1500000000 /x/f /x\nUSER nobody\n\
                      WORKDIR /home/n\nRUN touch mine\n";
    let script = "stat -c %Y /x /x/f; stat -c %u:%g /home/n /home/n/mine";
    let expected = "1500000000\n1500000000\n65534:65534\n65534:65534\n";
    assert_eq!(seen(dockerfile, script), expected);
}

#[test]
fn the_command_line_is_podman_s() {
    let dir = tempfile::tempdir().unwrap();
    let text_of = "FROM --platform=linux/arm64 busybox\nARG A\nENV B=${A%.*}\n";
    write(dir.path(), "Containerfile", text_of);
    let sandbox = Sandbox::with_busybox();
    let mut command = Command::new(isolab_path());
    command.args(["image", "build", "-t", "one", "--tag", "two:v2", "--build-arg", "A=1.2"]);
    command.args(["--build-arg", "C=3", "--quiet"]).current_dir(dir.path());
    let done = Run::new(command).env("XDG_DATA_HOME", text(sandbox.data())).finish();
    assert_eq!(done.stderr.lines().count(), 2, "{done:?}");
    assert!(done.stderr.contains("build argument C") && done.stderr.contains("linux/arm64"));
    done.success();
    for name in ["one", "two:v2"] {
        let run = sandbox.isolab(&["run", name, "sh", "-c", "echo $B"]).finish();
        assert_eq!(run.success(), "1\n");
    }
}

#[test]
fn triggers_are_executed_in_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::with_busybox();
    let build = |name: &str, dockerfile: &str| {
        write(dir.path(), "Dockerfile", dockerfile);
        sandbox.isolab(&["image", "build", "-t", name, text(dir.path())]).finish().success()
    };
    build("parent", "FROM busybox\nONBUILD COPY Dockerfile /d\nONBUILD RUN wc -l </d >/lines\n");
    build("child", "FROM parent\nUSER 1\n");
    assert_eq!(sandbox.isolab(&["run", "child", "cat", "/lines"]).finish().success(), "2\n");
}
