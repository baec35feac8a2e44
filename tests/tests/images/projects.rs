//! Images of a compose file's services: built from folders, with arguments and secrets, and pulled from a registry.

use std::fs;
use std::path::Path;

use isolab_tests::{Done, Sandbox, text};
use tempfile::TempDir;

use crate::registry::Registry;

const DOCKERFILE: &str = "FROM busybox AS wanted\n\
    ARG WORD\n\
    ARG OURS\n\
    RUN --mount=type=secret,id=key --mount=type=secret,id=other \
        cat /run/secrets/key /run/secrets/other | sha256sum >/seen && echo \"$WORD $OURS\" >/words\n\
    FROM busybox AS other\n\
    RUN exit 3\n";

/// `printf 'open sesame\nopen sesame\n' | sha256sum`
const SEEN: &str = "86ccc5b03c8229f72e4653a7a42410663f75a5f691f442d3badf8442c7a60c89";

/// A project in a store of its own.
struct Project {
    sandbox: Sandbox,
    folder: TempDir,
}

impl Project {
    fn new(compose: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [&[("compose.yaml", compose)], files].concat() {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            fs::write(path, content).unwrap();
        }
        Self { sandbox: Sandbox::with_busybox(), folder }
    }

    fn compose(&self, words: &[&str]) -> Done {
        let file = self.folder.path().join("compose.yaml");
        let begin = ["compose", "-f", text(&file), "-p", "p"];
        self.sandbox.isolab(&begin).args(words).env("OURS", "our own").finish()
    }

    /// What a service prints that is run to its end in the foreground.
    #[track_caller]
    fn up(&self, service: &str) -> String {
        let told = self.compose(&["up", "--no-log-prefix", "--exit-code-from", service, service]);
        let told = told.success();
        self.compose(&["down"]).success();
        told
    }
}

#[test]
fn images_of_services_are_built_with_arguments_and_secrets() {
    let file = "services:\n  \
          app:\n    build:\n      context: source\n      dockerfile: recipes/Dockerfile\n      target: wanted\n      \
            args: {WORD: hello, OURS: }\n      tags: ['more:v1']\n      secrets: [key, {source: key, target: other}]\n    \
            command: [sh, -c, 'cat /words /seen; ls /run/secrets; cat /run/secrets/later']\n    network_mode: none\n    \
            secrets: [{source: key, target: later}]\n  \
          broken:\n    build: {context: source, dockerfile: recipes/Dockerfile}\n    network_mode: none\n\
        secrets: {key: {file: ./key}}\n";
    let files = [("source/recipes/Dockerfile", DOCKERFILE), ("key", "open sesame\n")];
    let project = Project::new(file, &files);
    // `up` builds what is not there; the image itself has nothing of the secret but what RUN made of it.
    project.compose(&["up", "--no-build", "app"]).fails_with(125, &["service `app`", "p-app"]);
    let told = project.up("app");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "hello our own", "{told}");
    assert!(lines[1].starts_with(SEEN), "{told}");
    assert_eq!(lines[2..], ["later", "open sesame"], "{told}");
    let bare = ["run", "--rm", "more:v1", "sh", "-c", "ls -A /run/secrets; ls -A /run"];
    let bare = project.sandbox.isolab(&bare).finish();
    assert!(!bare.stdout.contains("key") && !bare.stdout.contains("later"), "{bare:?}");
    // Not again, unless it is asked for; then with another value from the command line.
    let again = project.compose(&["build", "app"]);
    assert!(again.stderr.contains("Building app"), "{again:?}");
    again.success();
    project
        .compose(&["build", "--build-arg", "WORD=bye", "--no-cache", "--quiet", "app"])
        .success();
    assert!(project.up("app").starts_with("bye our own\n"));
    project.compose(&["up", "--build", "--no-start", "app"]).success();
    assert!(project.up("app").starts_with("hello our own\n"));
    project
        .compose(&["build"])
        .fails_with(125, &["service `broken`: its image cannot be built", "exit 3"]);
}

#[test]
fn images_of_services_are_pulled() {
    let registry = Registry::start();
    let publisher = Sandbox::with_busybox();
    let name = registry.name("team/tool:v1");
    let push = |image: &str| {
        publisher.isolab(&["image", "push", "--insecure", image, &name]).finish().success()
    };
    push("busybox");
    let file = format!(
        "services:\n  tool: {{image: '{name}', command: echo from afar, network_mode: none}}\n  \
         built: {{build: source, network_mode: none}}\n  \
         fresh: {{image: '{name}', command: cat /version, network_mode: none, pull_policy: always}}\n  \
         none: {{image: '{}', network_mode: none, profiles: [none]}}\n",
        registry.name("team/none:v1")
    );
    let project = Project::new(&file, &[("source/Dockerfile", "FROM busybox\nCMD echo built\n")]);
    project
        .compose(&["up", "--pull", "never", "tool"])
        .fails_with(125, &["service `tool`", "team/tool:v1"]);
    project
        .compose(&["pull", "--insecure", "none"])
        .fails_with(125, &["service `none`", "team/none:v1"]);
    // What is built is in no registry, and left out.
    project.compose(&["pull", "--insecure"]).success();
    assert_eq!(project.up("tool"), "from afar\n");
    assert_eq!(project.up("built"), "built\n");
    // A newer one under the same name: by `up`, of the service that always wants it.
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("Dockerfile"), "FROM busybox\nRUN echo two >/version\n").unwrap();
    publisher.isolab(&["image", "build", "-t", "two", text(context.path())]).finish().success();
    push("two");
    let words = ["up", "--insecure", "--no-log-prefix", "--exit-code-from", "fresh", "fresh"];
    assert_eq!(project.compose(&words).success(), "two\n");
    project.compose(&["down"]).success();
}
