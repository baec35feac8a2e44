//! The Compose Specification, chapter by chapter: files of ours with each construct that its examples have, and what
//! they come to. What is refused of it is in `refused.rs`; variables, merges and profiles in depth in `files.rs`.
//! See <https://github.com/compose-spec/compose-spec>.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isolab_compose::model::{
    Attached, Condition, Mount, MountKind, ProjectNetwork, PullPolicy, Resources, Service,
};
use isolab_compose::{Project, ProjectOptions, Variables};
use isolab_instances::RestartPolicy;
use isolab_isolation::Seccomp;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specification")
}

fn variables(all: &[(&str, &str)]) -> Variables {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(file: &str) -> Project {
    let options = ProjectOptions {
        files: vec![folder().join(file)],
        variables: variables(&[("TAG", "v3"), ("STEAM", "yes")]),
        ..ProjectOptions::default()
    };
    Project::load(&options).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn shown<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn words(all: &[&str]) -> Option<Vec<String>> {
    Some(shown(all))
}

#[test]
fn a_service_in_all_its_forms() {
    let project = load("services.yaml");
    assert_eq!(project.name, "bakery");
    let oven = &project.services["oven"];
    assert_eq!(oven.image.as_deref(), Some("registry.example:5000/bakery/oven:v2"));
    assert_eq!(oven.instance_name.as_ref().map(ToString::to_string).as_deref(), Some("the-oven"));
    assert_eq!(oven.command, words(&["bake", "--for", "40 minutes", "bread"]));
    assert_eq!(oven.entrypoint, words(&["/bin/oven", "--log"]));
    // What has no value has ours; the file's is under what is said here.
    let environment = variables(&[
        ("HEAT", "220"),
        ("EMPTY", ""),
        ("STEAM", "yes"),
        ("FUEL", "wood and gas"),
        ("CHIMNEY", "open"),
    ]);
    assert_eq!(oven.environment, environment);
    let ports = [
        "0:80/tcp",
        "8080:80/tcp",
        "127.0.0.1:8443:443/tcp",
        "[::1]:53:53/udp",
        "7000-7002:7000-7002/tcp",
        "127.0.0.1:9091:9090/tcp",
    ];
    assert_eq!(shown(&oven.ports), ports);
    assert_eq!(oven.depends_on["flour"].condition, Condition::Started);
    let health = oven.health.as_ref().unwrap();
    assert_eq!(health.command, words(&["/bin/oven", "--well"]));
    let seconds = |length| Some(Duration::from_secs(length));
    let times = [health.interval, health.timeout, health.start_period];
    assert_eq!((times, health.retries), ([seconds(90), seconds(10), seconds(40)], Some(4)));
    assert_eq!(oven.restart, RestartPolicy::OnFailure(Some(3)));
    assert_eq!(oven.user.as_deref(), Some("1000:100"));
    assert_eq!(oven.working_dir.as_deref(), Some("/srv/oven"));
    assert!(oven.read_only && oven.stdin_open && oven.tty && oven.security.init);
    assert_eq!(oven.hostname.as_deref(), Some("oven"));
    let hosts: Vec<_> =
        oven.hosts.iter().map(|it| format!("{} {}", it.names[0], it.address)).collect();
    assert_eq!(hosts, ["mill 192.0.2.7", "store 2001:db8::9"]);
    assert_eq!(oven.labels, variables(&[("org.bakery.room", "back"), ("org.bakery.warm", "")]));
    assert_eq!((oven.stop_signal, oven.stop_grace_period), (Some(2), seconds(80)));
    assert_eq!(oven.profiles, ["bread"]);
    assert_eq!(oven.pull_policy, PullPolicy::Missing);
    assert_eq!((oven.log.max_size, oven.log.max_file), (200 << 10, 10));
    let amounts = (oven.resources.memory, oven.resources.cpus, oven.resources.pids);
    assert_eq!(amounts, (Some(512 << 20), Some(0.5), Some(90)));
    let memory: Vec<_> = oven.mounts.iter().map(|it| (&it.target, &it.options[..])).collect();
    assert_eq!(memory[0], (&PathBuf::from("/run"), &[][..]));
    assert_eq!(memory[1].1, [format!("size={}", 64 << 20), "mode=1770".to_owned()]);
}

#[test]
fn rights_of_a_service() {
    let project = load("services.yaml");
    let rights = &project.services["oven"].security;
    assert_eq!(shown(&rights.cap_add), ["CAP_NET_ADMIN"]);
    assert_eq!(shown(&rights.cap_drop), ["ALL"]);
    assert!(!rights.privileged && rights.no_new_privileges == Some(true));
    assert_eq!(rights.seccomp, Seccomp::Unconfined);
    assert_eq!(rights.sysctls, variables(&[("net.core.somaxconn", "1024")]));
    let limits: Vec<_> = rights.ulimits.iter().map(|it| (it.soft, it.hard)).collect();
    assert_eq!(limits, [(65535, 65535), (20000, 40000)]);
    let devices: Vec<_> = rights
        .devices
        .iter()
        .map(|it| format!("{} {} {}", it.host.display(), it.container.display(), it.permissions))
        .collect();
    assert_eq!(devices, ["/dev/null /dev/smoke rw", "/dev/zero /dev/flame r"]);
    assert_eq!((rights.shm_size, rights.oom_score_adj), (Some(64 << 20), Some(-500)));
    assert_eq!(rights.groups.len(), 2);
    let flour = &project.services["flour"].security;
    assert!(flour.host_pid && flour.host_ipc && flour.host_uts);
    assert_eq!(flour.sysctls, variables(&[("net.core.somaxconn", "512")]));
}

#[test]
fn other_forms_of_the_same() {
    let project = load("services.yaml");
    let flour = &project.services["flour"];
    // Nothing said is nothing changed.
    assert_eq!(flour.command, None);
    assert_eq!(flour.environment["MILL"], "stone");
    assert!(!flour.environment.contains_key("UNSAID"));
    assert_eq!(flour.environment["HEAT"], "180");
    assert_eq!(flour.hosts[0].names, ["mill"]);
    assert_eq!(flour.labels, variables(&[("org.bakery.room", "store")]));
    let on = |name: &str| {
        let on = &flour.depends_on[name];
        (on.condition, on.restart, on.required)
    };
    assert_eq!(on("mill"), (Condition::Completed, true, true));
    assert_eq!(on("weather"), (Condition::Started, false, false));
    let shell = words(&["/bin/sh", "-c", "test -e /flour"]);
    assert_eq!(flour.health.as_ref().unwrap().command, shell);
    assert_eq!(flour.attached, Attached::None);
    assert_eq!((flour.restart, flour.resources.replicas), (RestartPolicy::Always, Some(2)));
    let disabled = |name: &str| project.services[name].health.as_ref().unwrap().disabled;
    assert!(disabled("mill") && disabled("weather"));
    assert_eq!(project.services["mill"].restart, RestartPolicy::No);
    assert_eq!(project.services["weather"].restart, RestartPolicy::Always);
    assert_eq!(project.services["mill"].mounts[0].target, Path::new("/dust"));
    // What nobody chose is not started, unless it is asked for by name.
    assert_eq!(project.select(&[], true).unwrap(), ["mill", "flour"]);
    assert_eq!(project.select(&["oven".to_owned()], true).unwrap(), ["mill", "flour", "oven"]);
}

#[test]
fn how_images_are_built() {
    let project = load("build.yaml");
    let build = |name: &str| project.services[name].build.clone().unwrap();
    let context = folder().join("app");
    assert_eq!((build("short").context, build("short").dockerfile), (context.clone(), None));
    assert_eq!(project.image("short"), "specification-short");
    let long = build("long");
    assert_eq!(project.image("long"), "bakery/long");
    assert_eq!(long.dockerfile, Some(context.join("other.Dockerfile")));
    let args = |flour: &str| {
        BTreeMap::from([("FLOUR".to_owned(), Some(flour.to_owned())), ("OVEN".to_owned(), None)])
    };
    assert_eq!(long.args, args("rye"));
    assert_eq!(long.target.as_deref(), Some("crust"));
    assert!(long.no_cache && long.host_network);
    assert_eq!(long.tags, ["bakery/long:1", "bakery/long:latest"]);
    assert_eq!(long.platform.as_deref(), Some("linux/amd64"));
    let key = folder().join("key");
    let secrets = [("key".to_owned(), key.clone()), ("other".to_owned(), key)];
    assert_eq!(long.secrets, secrets);
    assert_eq!((build("listed").context, build("listed").args), (context, args("spelt")));
    assert_eq!(project.services["listed"].pull_policy, PullPolicy::Build);
}

#[test]
fn amounts_and_restarts() {
    let project = load("deploy.yaml");
    let of = |name: &str| project.services[name].resources.clone();
    let many = Resources {
        memory: Some(50 << 20),
        cpus: Some(1.5),
        pids: Some(20),
        replicas: Some(6),
        restart: Some(RestartPolicy::OnFailure(Some(3))),
    };
    assert_eq!(of("many"), many);
    assert_eq!(project.services["many"].restart, RestartPolicy::OnFailure(Some(3)));
    assert_eq!(project.services["once"].restart, RestartPolicy::No);
    // deploy comes before the service's own, and -1 is no limit.
    let always = of("always");
    assert_eq!((always.memory, always.pids), (Some(64), None));
    assert_eq!(project.services["always"].restart, RestartPolicy::Always);
}

#[test]
fn networks_and_places_on_them() {
    let project = load("networks.yaml");
    let places = |name: &str| match &project.services[name].attached {
        Attached::Networks(all) => {
            all.iter().map(|it| it.network.as_str()).collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    };
    for (service, expected) in [
        ("alone", "default"),
        ("listed", "back front"),
        ("placed", "back front given"),
        ("bridged", "default"),
        ("of-host", "Host"),
    ] {
        assert_eq!(places(service), expected, "{service}");
    }
    let Attached::Networks(placed) = &project.services["placed"].attached else { panic!() };
    let front = &placed[1];
    assert_eq!(shown(&front.aliases), ["counter", "till"]);
    assert_eq!(front.address, "172.16.238.10".parse().ok());
    assert_eq!(
        front.mac.as_ref().map(|it| it.to_string().to_lowercase()).as_deref(),
        Some("02:42:ac:11:65:43")
    );
    let ProjectNetwork { ipv6, subnet, gateway, labels, .. } = &project.networks["front"];
    assert!(ipv6);
    assert_eq!((*subnet, *gateway), ("172.16.238.0/24".parse().ok(), "172.16.238.1".parse().ok()));
    assert_eq!(labels, &variables(&[("org.bakery.door", "front")]));
    assert!(project.networks["back"].internal && project.networks["given"].external);
    let names = ["front", "back", "given", "plain"].map(|name| project.network_name(name));
    assert_eq!(names, ["specification_front", "bakery-back", "town", "specification_plain"]);
}

#[test]
fn volumes_and_mounts() {
    let project = load("volumes.yaml");
    let dough = |copy_up| MountKind::Volume { name: "dough".to_owned(), copy_up };
    let host = |path: PathBuf, create| MountKind::Host { path, create };
    let recipes = folder().join("recipes");
    let expected: [(&str, MountKind, bool, &[&str]); 10] = [
        ("/var/own", MountKind::Anonymous { copy_up: true }, false, &[]),
        ("/srv/dough", dough(true), false, &[]),
        ("/srv/again", dough(false), true, &[]),
        ("/srv/recipes", host(recipes.clone(), true), true, &[]),
        ("/srv/home", host(std::env::home_dir().unwrap().join(".bakery"), true), false, &[]),
        ("/srv/host", host("/srv/host".into(), true), false, &["rshared"]),
        ("/srv/long", dough(false), false, &[]),
        ("/srv/unnamed", MountKind::Anonymous { copy_up: true }, true, &[]),
        ("/srv/bound", host(recipes, false), false, &["rslave"]),
        ("/srv/quick", MountKind::Memory, false, &["size=1073741824", "mode=1777"]),
    ];
    let mounts = &project.services["all"].mounts;
    assert_eq!(mounts.len(), expected.len());
    for (Mount { target, kind, read_only, options, .. }, expected) in mounts.iter().zip(expected) {
        let found = (target.to_str().unwrap(), kind.clone(), *read_only, shown(options));
        assert_eq!(found, (expected.0, expected.1, expected.2, shown(expected.3)));
    }
    assert_eq!(project.volumes["dough"].labels, variables(&[("org.bakery.cold", "yes")]));
    assert!(project.volumes["town"].external);
    assert_eq!(project.volume_name("town"), "the-town-s");
    assert_eq!(project.volumes["cellar"].size, Some(2 << 30));
}

#[test]
fn configs_and_secrets() {
    let project = load("files.yaml");
    let found: Vec<_> = project.services["reader"]
        .mounts
        .iter()
        .map(|it| {
            let MountKind::Host { path, create: false } = &it.kind else { panic!("{it:?}") };
            assert!(it.read_only);
            (path.clone(), it.target.to_str().unwrap())
        })
        .collect();
    let (menu, key) = (folder().join("menu.conf"), PathBuf::from("/etc/bakery/key"));
    let expected = [
        (key.clone(), "/run/secrets/key"),
        (key.clone(), "/run/secrets/renamed"),
        (key, "/etc/deep/key"),
        (menu.clone(), "/menu"),
        (menu, "/etc/menu.conf"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn fragments_and_extensions() {
    let project = load("fragments.yaml");
    let Service { image, log, environment, .. } = &project.services["first"];
    assert_eq!(image.as_deref(), Some("bakery/base"));
    assert_eq!((log.max_size, log.max_file), (12 << 20, 5));
    assert_eq!(environment, &variables(&[("SHARED", "one"), ("CHANGED", "two")]));
    let second = &project.services["second"];
    assert_eq!(second.image, *image);
    assert_eq!(second.log, *log);
    // Of several merges the first one counts.
    let environment = variables(&[("SHARED", "one"), ("CHANGED", "two"), ("OWN", "three")]);
    assert_eq!(second.environment, environment);
    assert_eq!(second.resources.memory, Some(1 << 20));
}

#[test]
fn parts_of_other_files() {
    let project = load("include.yaml");
    let shop = &project.services["shop"];
    assert_eq!(shop.image.as_deref(), Some("bakery/shop:v3-plain"));
    assert_eq!(shop.command, words(&["echo", "$HOME"]));
    assert_eq!(shop.environment, variables(&[("OPEN", "yes")]));
    let path = |service: &str| match &project.services[service].mounts[0].kind {
        MountKind::Host { path, .. } => path.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(path("shop"), folder().join("common/window"));
    assert_eq!(path("cellar"), folder().join("parts/wine"));
    assert_eq!(project.image("cellar"), "cellar:1998");
    let attic = &project.services["attic"];
    assert_eq!((project.image("attic").as_str(), &attic.command), ("attic:1887", &None));
    assert_eq!(shown(&attic.ports), ["2:2/tcp"]);
    assert_eq!(attic.labels, variables(&[("found", "old 1887")]));
    let services: Vec<_> = project.select(&[], true).unwrap();
    assert_eq!(services, ["attic", "cellar", "shop"]);
    // Dependencies are not inherited.
    assert_eq!(project.services["helper"].image, shop.image);
    let refused =
        ProjectOptions { files: vec![folder().join("include.yaml")], ..ProjectOptions::default() };
    let told = Project::load(&refused).map(|it| it.name).unwrap_err().to_string();
    assert!(told.contains("include.yaml:10: the variable TAG has no value: say which"), "{told}");
}
