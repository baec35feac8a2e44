//! Pull, push and login against a real registry.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use isolab_tests::{Done, Sandbox, busybox_layout, text, tool};
use serde_json::Value;

use crate::registry::Registry;

fn digest(sandbox: &Sandbox, name: &str) -> String {
    let inspected = sandbox.isolab(&["image", "inspect", "--format", "json", name]).finish();
    let inspected: Value = serde_json::from_str(&inspected.success()).unwrap();
    inspected[0]["digest"].as_str().unwrap().to_owned()
}

fn pull(sandbox: &Sandbox, name: &str) -> Done {
    sandbox.isolab(&["image", "pull", "--insecure", name]).finish()
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.isolab(&["image", "ls", "--format", "json"]).finish().success();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let records = listed.as_array().unwrap().iter();
    records.map(|record| record["reference"].as_str().unwrap_or("-").to_owned()).collect()
}

/// busybox with `size` bytes in a file that do not compress.
fn large_layout(target: &Path, size: usize) {
    let source = format!("oci:{}:busybox:latest", busybox_layout().display());
    let image = format!("{}:large", target.display());
    tool("skopeo", &["copy", &source, &format!("oci:{image}")]);
    let file = target.with_extension("content");
    // xorshift: the same bytes every time.
    let mut state = 88172645463325252u64;
    let content: Vec<u8> = (0..size / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    fs::write(&file, content).unwrap();
    tool("umoci", &["insert", "--image", &image, text(&file), "/large"]);
}

#[test]
fn what_we_push_skopeo_reads_and_what_skopeo_pushes_we_run() {
    let registry = Registry::start();
    let ours = Sandbox::with_busybox();
    let name = registry.name("team/busybox:v1");
    let push = ["image", "push", "--insecure", "busybox", &name];
    let pushed = ours.isolab(&push).finish().success();
    assert_eq!(pushed.trim(), digest(&ours, "busybox"));
    // Again: all is there already.
    assert_eq!(ours.isolab(&push).finish().success(), pushed);
    let remote = format!("docker://{name}");
    let seen = tool("skopeo", &["inspect", "--tls-verify=false", &remote]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["Digest"], pushed.trim());

    let theirs = Sandbox::empty();
    assert_eq!(pull(&theirs, &name).success(), pushed);
    assert_eq!(theirs.isolab(&["run", &name, "echo", "pulled"]).finish().success(), "pulled\n");
    let pinned = format!("{}@{}", registry.name("team/busybox"), pushed.trim());
    assert_eq!(pull(&theirs, &pinned).success(), pushed);

    // Docker's own media types, packed by skopeo.
    let docker = registry.name("docker:latest");
    let source = format!("oci:{}:busybox:latest", busybox_layout().display());
    tool(
        "skopeo",
        &[
            "copy",
            "--format",
            "v2s2",
            "--dest-tls-verify=false",
            &source,
            &format!("docker://{docker}"),
        ],
    );
    pull(&theirs, &docker).success();
    assert_eq!(theirs.isolab(&["run", &docker, "echo", "docker"]).finish().success(), "docker\n");
    let inspected = theirs.isolab(&["image", "inspect", "--format", "json", &docker]).finish();
    let inspected: Value = serde_json::from_str(&inspected.success()).unwrap();
    assert_eq!(inspected[0]["media_type"], "application/vnd.docker.distribution.manifest.v2+json");
    // And on to a registry under its own digest.
    let copy = registry.name("copy:latest");
    let pushed = theirs.isolab(&["image", "push", "--insecure", &docker, &copy]).finish().success();
    assert_eq!(pushed.trim(), digest(&theirs, &docker));
}

#[test]
fn pulls_of_one_image_at_once_fetch_each_blob_once() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("large");
    large_layout(&layout, 8 << 20);
    let name = "large:latest";
    tool(
        "skopeo",
        &[
            "copy",
            "--dest-tls-verify=false",
            &format!("oci:{}:large", layout.display()),
            &format!("docker://{}", registry.name(name)),
        ],
    );
    let proxy = registry.proxy(0, 0);
    let name = proxy.name(name);
    let sandbox = Sandbox::empty();
    let start = || sandbox.isolab(&["image", "pull", "--insecure", &name]).start(Stdio::null());
    let running = [start(), start(), start(), start()];
    let digests: Vec<String> = running.map(|pull| pull.finish().success()).to_vec();
    assert!(digests.iter().all(|other| *other == digests[0]));
    // The configuration and two layers.
    assert_eq!(proxy.asked().matches("get /v2/large/blobs/").count(), 3);
    let run = sandbox.isolab(&["run", &name, "wc", "-c", "/large"]).finish().success();
    assert_eq!(run, format!("{} /large\n", 8 << 20));
}

#[test]
fn a_blob_that_breaks_off_is_resumed() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("large");
    large_layout(&layout, 8 << 20);
    tool(
        "skopeo",
        &[
            "copy",
            "--dest-tls-verify=false",
            &format!("oci:{}:large", layout.display()),
            &format!("docker://{}", registry.name("large:latest")),
        ],
    );
    // Twice in one pull.
    let proxy = registry.proxy(2, 3 << 20);
    let sandbox = Sandbox::empty();
    pull(&sandbox, &proxy.name("large:latest")).success();
    assert_eq!(proxy.asked().matches("range: bytes=").count(), 2, "{}", proxy.asked());

    // And from one pull to the next, where the registry fails until the first gives up.
    let broken = registry.proxy(100, 1 << 20);
    let sandbox = Sandbox::empty();
    pull(&sandbox, &broken.name("large:latest")).fails_with(125, &["cannot pull"]);
    assert_eq!(names(&sandbox), [""; 0]);
    let proxy = registry.proxy(0, 0);
    let direct = proxy.name("large:latest");
    pull(&sandbox, &direct).success();
    assert_eq!(proxy.asked().matches("range: bytes=").count(), 1, "{}", proxy.asked());
    let run = sandbox.isolab(&["run", &direct, "wc", "-c", "/large"]).finish().success();
    assert_eq!(run, format!("{} /large\n", 8 << 20));
}

#[test]
fn a_registry_that_forges_a_blob_is_found_out() {
    let registry = Registry::start();
    let ours = Sandbox::with_busybox();
    let name = registry.name("busybox");
    ours.isolab(&["image", "push", "--insecure", "busybox", &name]).finish().success();
    let inspected = ours.isolab(&["image", "inspect", "--format", "json", "busybox"]).finish();
    let inspected: Value = serde_json::from_str(&inspected.success()).unwrap();
    let layer = inspected[0]["layers"][0]["digest"].as_str().unwrap();
    let blob = registry.blob(layer);
    let mut content = fs::read(&blob).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&blob, content).unwrap();
    let sandbox = Sandbox::empty();
    pull(&sandbox, &name).fails_with(125, &[layer, "damaged or forged"]);
    assert_eq!(names(&sandbox), [""; 0]);
}

#[test]
fn a_registry_with_a_password_takes_the_one_that_login_kept() {
    let registry = Registry::start_with_password();
    let sandbox = Sandbox::with_busybox();
    let config = tempfile::tempdir().unwrap();
    let folder = text(config.path());
    let isolab = |arguments: &[&str]| sandbox.isolab(arguments).env("DOCKER_CONFIG", folder);
    let host = registry.host();
    let name = registry.name("private/busybox");
    let push = ["image", "push", "--insecure", "busybox", &name];
    isolab(&push).finish().fails_with(125, &["denies", "isolab image login", &host]);
    let login =
        ["image", "login", "--insecure", "--user", "operator", "--password-stdin", host.as_str()];
    isolab(&login)
        .finish_with_input(b"wrong\n")
        .fails_with(125, &["does not take this user", &host]);
    assert!(!config.path().join("config.json").exists(), "a refused password was kept");
    isolab(&login).finish_with_input(b"secret\n").success();
    isolab(&push).finish().success();
    isolab(&["image", "rm", "busybox"]).finish().success();
    isolab(&["image", "pull", "--insecure", &name]).finish().success();
    let authfile = config.path().join("config.json");
    let remote = format!("docker://{name}");
    tool("skopeo", &["inspect", "--authfile", text(&authfile), "--tls-verify=false", &remote]);
    // Without the credentials the same is refused.
    pull(&Sandbox::empty(), &name).fails_with(125, &["denies"]);
}

/// Every kind of request: what a registry refuses for now is asked for again.
#[test]
fn a_registry_that_is_busy_or_ill_is_asked_again() {
    let registry = Registry::start();
    let proxy = registry.moody();
    let ours = Sandbox::with_busybox();
    let name = proxy.name("team/busybox:v1");
    let push = ["image", "push", "--insecure", "busybox", &name];
    let pushed = ours.isolab(&push).finish().success();
    let theirs = Sandbox::empty();
    assert_eq!(pull(&theirs, &name).success(), pushed);
    let asked = proxy.asked();
    for request in ["get /v2/team/busybox/manifests/v1", "put /v2/team/busybox/manifests/v1"] {
        assert_eq!(asked.matches(request).count(), 2, "{request}: {asked}");
    }
    for request in ["head /v2/team/busybox/blobs/sha256:", "get /v2/team/busybox/blobs/sha256:"] {
        assert_eq!(asked.matches(request).count(), 4, "{request}: {asked}");
    }
    // What it does not have is no mood.
    pull(&theirs, &proxy.name("team/busybox:none")).fails_with(125, &["cannot pull"]);
}

#[test]
fn what_podman_keeps_of_credentials_is_taken_too() {
    let registry = Registry::start_with_password();
    let host = registry.host();
    let folder = tempfile::tempdir().unwrap();
    let authfile = folder.path().join("containers/auth.json");
    let login = ["login", "--tls-verify=false", "-u", "operator", "-p", "secret", &host];
    fs::create_dir_all(authfile.parent().unwrap()).unwrap();
    tool("skopeo", &[&login[..], &["--authfile", text(&authfile)]].concat());
    let sandbox = Sandbox::with_busybox();
    let name = registry.name("private/busybox");
    let push = |variable: &str, value: &Path| {
        let push = sandbox.isolab(&["image", "push", "--insecure", "busybox", &name]);
        let push = push.env("HOME", "/nonexistent").env("XDG_RUNTIME_DIR", "/nonexistent");
        push.env("DOCKER_CONFIG", "/nonexistent").env(variable, text(value)).finish()
    };
    push("IRRELEVANT", &authfile).fails_with(125, &["denies"]);
    for (variable, value) in [
        ("REGISTRY_AUTH_FILE", &*authfile),
        ("XDG_RUNTIME_DIR", folder.path()),
        ("XDG_CONFIG_HOME", folder.path()),
    ] {
        push(variable, value).success();
    }
}

/// Who signed a registry's certificate is told by a folder, by those that podman and Docker look
/// into, or by the system's store.
#[test]
fn a_registry_with_tls_is_trusted_by_its_authority() {
    let registry = Registry::start_with_tls();
    let authority = registry.authority();
    let other = Registry::start_with_tls().authority();
    let (right, wrong) = (text(authority.path()), text(other.path()));
    let name = registry.name("team/busybox:v1");
    let ours = Sandbox::with_busybox();
    let push = |options: &[&str]| {
        let words = [&["image", "push"], options, &["busybox", &name]].concat();
        ours.isolab(&words).env("HOME", "/nonexistent")
    };
    // One clear error and a hint for nobody's certificate, and for another authority's.
    for options in [&[][..], &["--cert-dir", wrong]] {
        let done = push(options).finish();
        assert_eq!(done.stderr.lines().count(), 2, "{done:?}");
        let host = registry.host();
        done.fails_with(125, &["UnknownIssuer", &format!("certs.d/{host}/ca.crt"), "--cert-dir"]);
    }
    push(&["--insecure"]).finish().fails_with(125, &["cannot push", &name]);
    push(&["--cert-dir", "/no/such"]).finish().fails_with(125, &["/no/such"]);
    let pushed = push(&["--cert-dir", right]).finish().success();

    // podman's folder of this user, and the system's store as OpenSSL's variable names it.
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join(".config/containers/certs.d").join(registry.host());
    fs::create_dir_all(&own).unwrap();
    fs::copy(authority.path().join("ca.crt"), own.join("ca.crt")).unwrap();
    let store = format!("{right}/ca.crt");
    for (variable, value) in [("HOME", text(home.path())), ("SSL_CERT_FILE", &store)] {
        let theirs = Sandbox::empty();
        let pull = theirs.isolab(&["image", "pull", &name]).env(variable, value).finish();
        assert_eq!(pull.success(), pushed);
    }
    // skopeo sees the same.
    let remote = format!("docker://{name}");
    let seen = tool("skopeo", &["inspect", "--cert-dir", right, &remote]);
    assert!(seen.contains(pushed.trim()), "{seen}");
}

/// As podman does it: what is not here is fetched, unless that is not wanted.
#[test]
fn run_fetches_an_image_that_is_not_here() {
    let registry = Registry::start();
    let ours = Sandbox::with_busybox();
    let name = registry.name("team/app");
    let push = ["image", "push", "--insecure", "busybox", &name];
    ours.isolab(&push).finish().success();

    let sandbox = Sandbox::empty();
    let run = |options: &[&str], name: &str| {
        let words = [&["run", "--insecure"], options, &[name, "echo", "here"]].concat();
        sandbox.isolab(&words).finish()
    };
    run(&["--pull", "never"], &name).fails_with(125, &["no image", &name]);
    let first = run(&[], &name);
    // Standard output is the workload's.
    assert_eq!((first.stdout.as_str(), first.stderr.as_str()), ("here\n", ""));
    let missing = registry.name("none");
    run(&[], &missing).fails_with(125, &["there is no image", &missing, "cannot pull"]);

    // Another image takes the name: only `always` looks.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM busybox\nENTRYPOINT [\"echo\", \"new\"]\n")
        .unwrap();
    ours.isolab(&["image", "build", "-t", &name, text(dir.path())]).finish().success();
    ours.isolab(&["image", "push", "--insecure", &name]).finish().success();
    assert_eq!(run(&["--pull", "missing"], &name).success(), "here\n");
    assert_eq!(run(&["--pull", "always"], &name).success(), "new echo here\n");
    drop(registry);
    assert_eq!(run(&[], &name).success(), "new echo here\n");
    run(&["--pull", "always"], &name).fails_with(125, &["cannot pull", &name]);
}

#[test]
fn what_cannot_be_reached_or_does_not_exist_is_said_so() {
    let registry = Registry::start();
    let sandbox = Sandbox::empty();
    let missing = registry.name("missing:v9");
    pull(&sandbox, &missing).fails_with(125, &["missing:v9", "cannot pull"]);
    // TLS to a registry that has none.
    let tls = sandbox.isolab(&["image", "pull", &missing]).finish();
    tls.fails_with(125, &["--insecure"]);
    pull(&sandbox, "127.0.0.1:1/nobody").fails_with(125, &["127.0.0.1:1", "refused"]);
    pull(&sandbox, "UPPER").fails_with(125, &["UPPER", "not an image reference"]);
}
