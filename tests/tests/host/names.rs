//! /etc/hosts and its like: the instance's own, whatever the image has, and never in a layer.

use std::fs;

use isolab_tests::Sandbox;

fn build(sandbox: &Sandbox, dockerfile: &str) {
    let context = tempfile::tempdir().expect("a temporary folder takes files");
    fs::write(context.path().join("hosts"), "9.9.9.9 localhost\n")
        .expect("a temporary folder takes files");
    fs::create_dir(context.path().join("etc")).expect("a temporary folder takes files");
    std::os::unix::fs::symlink("../var/names", context.path().join("etc/hosts"))
        .expect("a temporary folder takes files");
    fs::write(context.path().join("Dockerfile"), dockerfile)
        .expect("a temporary folder takes files");
    sandbox.isolab(&["image", "build", "-t", "named"]).arg(context.path()).finish().success();
}

#[test]
fn localhost_resolves_whatever_the_image_has() {
    let sandbox = Sandbox::with_busybox();
    build(&sandbox, "FROM busybox\nCOPY hosts /etc/hosts\n");
    let seen = sandbox.isolab(&["run", "named", "cat", "/etc/hosts"]).finish().success();
    assert!(seen.starts_with("127.0.0.1\tlocalhost\n") && !seen.contains("9.9.9.9"), "{seen}");
    // Mounted: the file of the image is not changed, and the next instance has its own.
    let words = ["run", "named", "sh", "-c", "echo 1.2.3.4 added >>/etc/hosts; cat /etc/hosts"];
    assert!(sandbox.isolab(&words).finish().success().contains("1.2.3.4"));
    let seen = sandbox.isolab(&["run", "named", "cat", "/etc/hosts"]).finish().success();
    assert!(!seen.contains("1.2.3.4"), "{seen}");
    // Plain processes have the host's network, and its names.
    let words = ["run", "--isolation", "process", "named", "cat", "/etc/hosts"];
    let host = fs::read_to_string("/etc/hosts").unwrap();
    assert_eq!(sandbox.isolab(&words).finish().success(), host);
}

#[test]
fn a_link_of_the_image_leads_nowhere() {
    let sandbox = Sandbox::with_busybox();
    build(&sandbox, "FROM busybox\nCOPY etc /etc\nRUN echo mine >/var/names\n");
    for level in ["process", "container"] {
        let words = ["run", "--isolation", level, "named", "cat", "/etc/hosts"];
        assert_eq!(sandbox.isolab(&words).finish().success(), "mine\n", "{level}");
    }
}

#[test]
fn steps_of_a_build_have_names_and_leave_none_in_the_image() {
    let sandbox = Sandbox::with_busybox();
    let lines = "RUN grep -q '127.0.0.1.localhost' /etc/hosts && hostname >/name\n\
                 RUN echo 1.2.3.4 x >>/etc/hosts; ls /etc >/listing\n";
    build(&sandbox, &format!("FROM busybox\n{lines}"));
    // At the level process the host's own would cover it, where there are any.
    let words = ["run", "named", "sh", "-c", "cat /name /listing /etc/hosts"];
    let seen = sandbox.isolab(&words).finish().success();
    assert!(seen.starts_with("build\n") && seen.contains("hosts\n"), "{seen}");
    assert!(!seen.contains("1.2.3.4"), "{seen}");
    let layers = sandbox.data().join("isolab/images/layers");
    for layer in fs::read_dir(layers).unwrap() {
        let layer = layer.unwrap().path();
        assert!(!layer.join("etc/hosts").exists(), "{}", layer.display());
    }
}
