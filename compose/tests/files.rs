//! Several files, variables, parts of other files, profiles, and the order of services.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use isolab_compose::{Project, ProjectOptions, Variables, to_json, to_yaml};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn options(folder: &Path, files: &[&str]) -> ProjectOptions {
    ProjectOptions {
        files: files.iter().map(|name| folder.join(name)).collect(),
        folder: files.is_empty().then(|| folder.to_owned()),
        ..ProjectOptions::default()
    }
}

fn load(options: &ProjectOptions) -> Project {
    Project::load(options).unwrap_or_else(|error| panic!("{error}"))
}

fn variables(all: &[(&str, &str)]) -> Variables {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn variables_are_interpolated_as_the_specification_says() {
    for (text, value) in [
        ("$FULL", "f"),
        ("${FULL}x$$FULL", "fx$FULL"),
        ("$FULL.x-$EMPTY-$NONE", "f.x--"),
        ("${FULL:-d}${EMPTY:-d}${NONE:-d}", "fdd"),
        ("${FULL-d}${EMPTY-d}${NONE-d}", "fd"),
        ("${FULL:+i}${EMPTY:+i}${NONE:+i}", "i"),
        ("${FULL+i}${EMPTY+i}${NONE+i}", "ii"),
        ("${FULL:?e}${EMPTY?e}", "f"),
        ("${NONE:-${EMPTY:-${FULL}}}", "f"),
        ("${FULL:-${NONE:?not needed}}", "f"),
        ("${NONE:-a:b/c-d}", "a:b/c-d"),
        ("${NONE-$FULL}", "f"),
        ("${NONE:-$${x}", "${x"),
    ] {
        let content = format!("services: {{s: {{image: i, working_dir: '/{text}'}}}}\n");
        let folder = folder(&[("compose.yaml", content.as_str())]);
        let mut options = options(folder.path(), &["compose.yaml"]);
        options.variables = variables(&[("FULL", "f"), ("EMPTY", "")]);
        options.name = Some("p".to_owned());
        let project = load(&options);
        assert_eq!(project.services["s"].working_dir, Some(format!("/{value}")), "{text}");
    }
}

#[test]
fn the_environment_wins_over_files_of_variables() {
    let content = "services: {s: {image: 'i:${A}-${B}-${COMPOSE_PROJECT_NAME}'}}\n";
    let folder = folder(&[
        ("compose.yaml", content),
        (".env", "A=file\nB=file\nCOMPOSE_PROJECT_NAME=named\n"),
        ("other.env", "B=other\n"),
    ]);
    let mut options = options(folder.path(), &["compose.yaml"]);
    options.variables = variables(&[("A", "ours")]);
    let image = |options: &ProjectOptions| load(options).image("s");
    assert_eq!(image(&options), "i:ours-file-named");
    options.name = Some("given".to_owned());
    assert_eq!(image(&options), "i:ours-file-given");
    options.env_files = vec![folder.path().join("other.env")];
    assert_eq!(image(&options), "i:ours-other-given");
}

#[test]
fn a_project_is_found_and_named() {
    let folder = folder(&[
        ("My.Shop/compose.yaml", "services: {s: {image: i}}\n"),
        ("My.Shop/compose.override.yaml", "services: {s: {image: j}}\n"),
        ("My.Shop/deep/er/x", ""),
        (
            "named/docker-compose.yml",
            "name: ours\nservices: {s: {image: '${COMPOSE_PROJECT_NAME}'}}\n",
        ),
        ("file/x.yaml", "services: {s: {image: k}}\n"),
    ]);
    let at = |place: &str| options(&folder.path().join(place), &[]);
    let project = load(&at("My.Shop"));
    assert_eq!((project.name.as_str(), project.image("s").as_str()), ("myshop", "j"));
    // Found above, and called after the folder that was named.
    let project = load(&at("My.Shop/deep/er"));
    assert_eq!((project.name.as_str(), project.image("s").as_str()), ("er", "j"));
    let project = load(&at("named"));
    assert_eq!((project.name.as_str(), project.image("s").as_str()), ("ours", "ours"));
    let mut by_variable = at("file");
    by_variable.variables = variables(&[
        ("COMPOSE_FILE", folder.path().join("file/x.yaml").to_str().unwrap()),
        ("COMPOSE_PROJECT_NAME", "v"),
    ]);
    assert_eq!(load(&by_variable).name, "v");
    let nowhere = Project::load(&at("no-such")).map(|it| it.name).unwrap_err().to_string();
    assert!(nowhere.contains("there is no compose.yaml"), "{nowhere}");
    let mut bad = at("named");
    bad.name = Some("Not Good".to_owned());
    assert!(Project::load(&bad).is_err());
}

#[test]
fn later_files_go_over_earlier_ones() {
    let folder = folder(&[
        (
            "a.yaml",
            "services:\n  s:\n    image: i\n    build: .\n    command: one two\n    environment: [A=1, B=1]\n    \
             ports: ['80:80', '81:81']\n    volumes: ['./a:/a', './b:/b']\n    cap_add: [CHOWN]\n    \
             labels: {a: '1'}\n    healthcheck: {test: [CMD, a, b], retries: 5, start_interval: 2s}\n    depends_on: [t]\n    \
             env_file: e\n  t: {image: t}\n  u: {image: u, expose: [1], tmpfs: /x}\n",
        ),
        (
            "b.yaml",
            "services:\n  s:\n    build: {target: x}\n    command: [three]\n    environment: {B: '2', C: '2'}\n    \
             ports: ['81:81', '82:82']\n    volumes: ['./c:/b']\n    cap_add: [KILL]\n    labels: ['b=2']\n    \
             healthcheck: {test: [CMD, c]}\n    depends_on: {u: {condition: service_completed_successfully}}\n  \
             t: !reset null\n  u: !override {image: v}\n",
        ),
        ("e", "E=1\nA=0\n"),
    ]);
    let one = options(folder.path(), &["a.yaml"]);
    assert_eq!(load(&one).services.len(), 3);
    let mut both = options(folder.path(), &["a.yaml", "b.yaml"]);
    // What is gone cannot be waited for.
    let gone = Project::load(&both).map(|it| it.name).unwrap_err().to_string();
    assert!(gone.contains("depends_on: there is no `t`"), "{gone}");
    let second = fs::read_to_string(folder.path().join("b.yaml")).unwrap();
    fs::write(folder.path().join("b.yaml"), second.replace("  t: !reset null\n", "")).unwrap();
    both.name = Some("p".to_owned());
    let project = load(&both);
    let service = &project.services["s"];
    assert_eq!(service.command.as_deref(), Some(&["three".to_owned()][..]));
    let environment: Vec<_> =
        service.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(environment, ["A=1", "B=2", "C=2", "E=1"]);
    let ports: Vec<_> = service.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["80:80/tcp", "81:81/tcp", "82:82/tcp"]);
    let targets: Vec<_> = service.mounts.iter().map(|it| it.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/a", "/b"]);
    assert_eq!(service.security.cap_add.len(), 2);
    assert_eq!(service.labels.len(), 2);
    let health = service.health.as_ref().unwrap();
    assert_eq!((health.command.as_deref(), health.retries), (Some(&["c".to_owned()][..]), Some(5)));
    assert_eq!(health.start_interval, Some(Duration::from_secs(2)));
    assert_eq!(service.depends_on.keys().collect::<Vec<_>>(), ["t", "u"]);
    let build = service.build.as_ref().unwrap();
    assert_eq!((build.context.as_path(), build.target.as_deref()), (folder.path(), Some("x")));
    let u = &project.services["u"];
    assert_eq!((u.image.as_deref(), u.mounts.len()), (Some("v"), 0));
    // What is printed is the same project again.
    for text in [to_yaml(&project), to_json(&project).to_string()] {
        fs::write(folder.path().join("c.yaml"), &text).unwrap();
        let again = load(&options(folder.path(), &["c.yaml"]));
        assert_eq!(to_json(&again), to_json(&project), "{text}");
    }
}

#[test]
fn services_extend_others_and_projects_include_others() {
    let folder = folder(&[
        (
            "compose.yaml",
            "include:\n- part/compose.yaml\n- {path: [more.yaml], env_file: more.env}\n\
             services:\n  web:\n    extends: {file: common/base.yaml, service: web}\n    environment: {B: '2'}\n    \
             volumes: ['./here:/here']\n  other:\n    extends: web\n    image: other\n",
        ),
        (
            "common/base.yaml",
            "services:\n  web:\n    extends: base\n    environment: [B=1]\n    volumes: ['./there:/there']\n  \
             base: {image: base, environment: {A: '1'}, profiles: [p]}\n",
        ),
        (
            "part/compose.yaml",
            "services: {db: {image: 'db:${V}', volumes: ['./d:/d']}}\nnetworks: {n: {}}\n",
        ),
        ("part/.env", "V=7\n"),
        ("more.yaml", "services: {more: {image: 'more:${V}'}}\n"),
        ("more.env", "V=8\n"),
        ("twice.yaml", "include: [part/compose.yaml]\nservices: {db: {image: x}}\n"),
        ("circle.yaml", "include: [circle.yaml]\n"),
    ]);
    let project = load(&options(folder.path(), &["compose.yaml"]));
    let web = &project.services["web"];
    assert_eq!(web.image.as_deref(), Some("base"));
    assert_eq!(web.environment, variables(&[("A", "1"), ("B", "2")]));
    assert_eq!(web.profiles, ["p"]);
    let sources = format!("{:?}", web.mounts);
    for path in ["common/there", "here"] {
        assert!(sources.contains(folder.path().join(path).to_str().unwrap()), "{sources}");
    }
    assert_eq!(project.services["other"].environment.len(), 2);
    assert_eq!((project.image("db").as_str(), project.image("more").as_str()), ("db:7", "more:8"));
    let sources = format!("{:?}", project.services["db"].mounts);
    assert!(sources.contains(folder.path().join("part/d").to_str().unwrap()), "{sources}");
    for (file, words) in [("twice.yaml", "`db` is in"), ("circle.yaml", "in the end itself")] {
        let told = Project::load(&options(folder.path(), &[file])).map(|it| it.name).unwrap_err();
        assert!(told.to_string().contains(words), "{file}: {told}");
    }
}

#[test]
fn services_are_ordered_and_chosen_by_profiles() {
    let content = "services:\n  \
        web: {image: i, depends_on: [app]}\n  \
        app: {image: i, depends_on: {db: {condition: service_healthy}, cache: {condition: service_started, required: false}}}\n  \
        db: {image: i}\n  \
        cache: {image: i, profiles: [fast]}\n  \
        debug: {image: i, profiles: [dev, fast], depends_on: [web]}\n";
    let folder = folder(&[("compose.yaml", content)]);
    let mut options = options(folder.path(), &["compose.yaml"]);
    let project = load(&options);
    let select = |project: &Project, names: &[&str], all| {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        project.select(&names, all).unwrap().join(" ")
    };
    assert_eq!(select(&project, &[], true), "db app web");
    assert_eq!(select(&project, &["app"], true), "db app");
    assert_eq!(select(&project, &["app"], false), "app");
    assert_eq!(select(&project, &["debug"], true), "db app web debug");
    assert!(project.select(&["nosuch".to_owned()], true).is_err());
    options.profiles = vec!["fast".to_owned()];
    assert_eq!(select(&load(&options), &[], true), "cache db app web debug");
    options.profiles.clear();
    options.variables = variables(&[("COMPOSE_PROFILES", "dev,x")]);
    assert_eq!(select(&load(&options), &[], true), "db app web debug");
    options.variables = variables(&[("COMPOSE_PROFILES", "*")]);
    assert_eq!(select(&load(&options), &[], true).split(' ').count(), 5);
}
