//! What is refused, with its file and line: constructs that isolab cannot do, and what is no compose file.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::error::Error;
use std::fs;

use isolab_compose::{Project, ProjectOptions};

/// What a file with this content is told.
fn refusal(content: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    fs::write(&file, content).unwrap();
    let options = ProjectOptions {
        files: vec![file.clone()],
        name: Some("test".to_owned()),
        ..ProjectOptions::default()
    };
    let error = Project::load(&options).map(|project| project.name).unwrap_err();
    let mut text = error.to_string().replace(file.to_str().unwrap(), "F");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Lines of a service, from the third line of the file on.
fn of_service(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  s:\n    image: i\n{lines}secrets: {{k: {{file: k}}}}\n")
}

#[test]
fn what_isolab_cannot_do_is_named_with_its_line_and_the_reason() {
    for (lines, place) in [
        ("annotations: {a: b}", 4),
        ("attach: false", 4),
        ("blkio_config: {weight: 300}", 4),
        ("cgroup: host", 4),
        ("cgroup_parent: m", 4),
        ("cpu_count: 2", 4),
        ("cpu_percent: 50", 4),
        ("cpu_period: 1000", 4),
        ("cpu_quota: 1000", 4),
        ("cpu_rt_period: 1000", 4),
        ("cpu_rt_runtime: 1000", 4),
        ("cpu_shares: 70", 4),
        ("cpuset: 0-1", 4),
        ("credential_spec: {file: x}", 4),
        ("device_cgroup_rules: ['c 1:3 mr']", 4),
        ("dns: 8.8.8.8", 4),
        ("dns_opt: [use-vc]", 4),
        ("dns_search: example.com", 4),
        ("domainname: example.com", 4),
        ("external_links: [redis]", 4),
        ("gpus: all", 4),
        ("isolation: hyperv", 4),
        ("label_file: x", 4),
        ("links: [db]", 4),
        ("mac_address: 02:00:00:00:00:01", 4),
        ("mem_reservation: 1g", 4),
        ("mem_swappiness: 10", 4),
        ("memswap_limit: 1g", 4),
        ("models: [m]", 4),
        ("oom_kill_disable: true", 4),
        ("post_start: [{command: x}]", 4),
        ("pre_start: [{command: x}]", 4),
        ("pre_stop: [{command: x}]", 4),
        ("provider: {type: x}", 4),
        ("pull_policy: daily", 4),
        ("pull_policy: every_12h", 4),
        ("pull_refresh_after: 24h", 4),
        ("runtime: runc", 4),
        ("storage_opt: {size: 1G}", 4),
        ("use_api_socket: true", 4),
        ("volumes_from: [db]", 4),
        ("platform: linux/arm64", 4),
        ("ports: ['8000-8002:80']", 4),
        ("ports:\n- '127.0.0.1:8000-8002:80/tcp'", 5),
        ("devices: [vendor.example/device=one]", 4),
        ("network_mode: service:db", 4),
        ("pid: container:x", 4),
        ("ipc: service:x", 4),
        ("extra_hosts: ['h:host-gateway']", 4),
        ("logging: {driver: syslog}", 4),
        ("security_opt: ['label:user:USER']", 4),
        ("volumes:\n- type: npipe\n  source: a\n  target: /a", 5),
        ("volumes:\n- type: image\n  source: i\n  target: /a\n  image: {subpath: x}", 8),
        ("volumes:\n- type: cluster\n  source: a\n  target: /a", 5),
        ("volumes:\n- {type: volume, target: /a, volume: {subpath: x}}", 5),
        ("volumes:\n- {type: volume, target: /a, volume: {labels: {a: b}}}", 5),
        ("volumes:\n- {type: bind, source: /a, target: /a, bind: {recursive: disabled}}", 5),
        ("secrets:\n- source: k\n  mode: 0440", 6),
        ("secrets:\n- source: k\n  uid: '103'", 6),
        ("secrets:\n- source: k\n  gid: '103'", 6),
        ("networks:\n  default:\n    ipv6_address: fd00::1", 6),
        ("networks:\n  default:\n    link_local_ips: [169.254.0.1]", 6),
        ("networks:\n  default:\n    interface_name: x", 6),
        ("networks:\n  default:\n    gw_priority: 1", 6),
        ("networks:\n  default:\n    driver_opts: {a: b}", 6),
        ("deploy:\n  mode: global", 5),
        ("deploy:\n  placement: {constraints: [x]}", 5),
        ("deploy:\n  endpoint_mode: vip", 5),
        ("deploy:\n  update_config: {parallelism: 2}", 5),
        ("deploy:\n  rollback_config: {parallelism: 2}", 5),
        ("deploy:\n  resources:\n    reservations: {memory: 20M}", 6),
        ("deploy:\n  restart_policy:\n    delay: 5s", 6),
        ("deploy:\n  restart_policy:\n    window: 5s", 6),
        ("build:\n  dockerfile_inline: FROM x", 5),
        ("build:\n  additional_contexts: {a: ./b}", 5),
        ("build:\n  entitlements: [network.host]", 5),
        ("build:\n  extra_hosts: ['a:10.0.0.1']", 5),
        ("build:\n  labels: {a: b}", 5),
        ("build:\n  shm_size: 1m", 5),
        ("build:\n  ulimits: {nofile: 10}", 5),
        ("build:\n  secrets:\n  - source: k\n    mode: 0440", 7),
        ("build:\n  ssh: [default]", 5),
        ("build:\n  privileged: true", 5),
        ("build:\n  platforms: [linux/amd64, linux/arm64]", 5),
        ("build: https://example.com/x.git", 4),
        ("env_file:\n- path: x\n  format: raw", 6),
    ] {
        let told = refusal(&of_service(lines));
        let begin = format!("F:{place}: ");
        let is_told = told.starts_with(&begin) && told.contains("is not supported: ");
        assert!(is_told, "{lines}\nexpected {begin}, found {told}");
    }
    for (content, place, words) in [
        ("networks:\n  n: {driver: overlay}", 2, "every network is a bridge"),
        ("networks:\n  n:\n    driver_opts: {a: b}", 3, "driver_opts"),
        (
            "networks:\n  n:\n    ipam:\n      config:\n      - {subnet: 10.1.0.0/24}\n      - {subnet: 10.2.0.0/24}",
            6,
            "second subnet",
        ),
        (
            "networks:\n  n: {ipam: {config: [{subnet: 10.1.0.0/24, ip_range: 10.1.0.0/25}]}}",
            2,
            "ip_range",
        ),
        ("volumes:\n  v:\n    driver: nfs", 3, "volumes are local"),
        ("volumes:\n  v: {driver_opts: {type: nfs, o: soft}}", 2, "a folder or a disk"),
        ("volumes:\n  v:\n    driver_opts: {type: disk, device: /dev/sdb}", 3, "bind mount"),
        ("secrets:\n  k: {external: true}", 2, "name a file"),
        ("secrets:\n  k:\n    environment: K", 3, "name a file"),
        ("secrets:\n  k:\n    driver: vault", 3, "name a file"),
        ("secrets:\n  k:\n    driver_opts: {a: b}", 3, "name a file"),
        ("configs:\n  c:\n    content: hello", 3, "name a file"),
        ("configs:\n  c:\n    environment: C", 3, "name a file"),
        ("configs:\n  c:\n    external: true", 3, "name a file"),
        ("configs:\n  c:\n    template_driver: golang", 3, "name a file"),
        ("networks:\n  n:\n    enable_ipv4: false", 3, "every network has IPv4"),
        ("networks:\n  n: {ipam: {driver: mine}}", 2, "given by isolab itself"),
        ("networks:\n  n: {ipam: {options: {a: b}}}", 2, "given in turn"),
        ("networks:\n  n: {ipam: {config: [{aux_addresses: {a: 10.1.0.5}}]}}", 2, "set aside"),
        ("models:\n  m: {model: x}", 1, "no models"),
    ] {
        let told = refusal(&format!("{content}\n"));
        assert!(
            told.starts_with(&format!("F:{place}: ")) && told.contains(words),
            "{content}\n{told}"
        );
    }
}

#[test]
fn what_is_no_compose_file_is_told_with_its_line() {
    let mut wrong = Vec::new();
    for (content, told) in [
        ("", "F:1: the file is empty"),
        ("- a\n", "F:1: a compose file: expected a mapping, found a list"),
        ("services: [a\n", "F:2: not YAML"),
        ("services:\n  a:\n    image: i\n    image: j\n", "F:4: `image` is there twice"),
        ("services:\n  a: {image: i}\nservice:\n  b: {}\n", "F:3: the project: service is unknown"),
        ("services:\n  a:\n    imge: i\n", "F:3: service a: imge is unknown"),
        ("services:\n  a:\n    command: x\n", "F:3: service a: neither image nor build"),
        ("services:\n  a b:\n    image: i\n", "F:2: `a b` cannot be a service's name"),
        (
            "services:\n  a:\n    image: [i]\n",
            "F:3: service a: image: expected a word, found a list",
        ),
        ("services:\n  a:\n    image: *x\n", "F:3: not YAML"),
        ("services:\n  a: !now\n    image: i\n", "F:2: the tag !now is unknown"),
        ("services:\n  a: &a\n    <<: *a\n", "F:3: an alias within its anchor"),
    ] {
        wrong.extend(unlike(content, told));
    }
    for (lines, told) in [
        ("ports: ['80:x']", "F:4: service s: ports: `80:x` is no port"),
        ("ports: [70000]", "F:4: service s: ports: `70000` is no port"),
        ("ports: ['8000-8002:80-81']", "F:4: service s: ports: `8000-8002:80-81` is no port"),
        ("ports:\n- {published: 80}", "F:5: service s: ports: the target is missing"),
        ("ports:\n- {target: 80, mode: host, speed: 1}", "F:5: service s: ports: speed is unknown"),
        (
            "environment:\n  A: true",
            "F:5: service s: environment.A: `true` is no text; write \"true\"",
        ),
        ("command: echo 'x", "F:4: service s: command: `echo \\'x`: a quote has no end"),
        ("volumes: ['data:/x']", "F:4: volumes: there is no `data` in the project"),
        ("volumes: ['./a:x']", "F:4: service s: volumes: `x`: expected an absolute path"),
        ("volumes: ['/a:/']", "F:4: service s: volumes: `/`: expected an absolute path"),
        ("volumes: ['/a:/x:huge']", "F:4: service s: volumes: `huge` is no option"),
        ("volumes:\n- /a:/x\n- /b:/x", "F:6: service s: two mounts on /x"),
        ("tmpfs: '/x:speed=1'", "F:4: service s: tmpfs: `speed=1` is no option"),
        ("networks: [back]", "F:4: service s: networks: there is no `back` in the project"),
        (
            "networks: {default: {ipv4_address: x}}",
            "F:4: service s: networks.default: ipv4_address: ",
        ),
        (
            "network_mode: none\nnetworks: [default]",
            "F:4: service s: network_mode and networks contradict",
        ),
        ("depends_on: [db]", "F:4: depends_on: there is no `db` in the project"),
        (
            "depends_on: {s: {condition: now}}",
            "F:4: service s: depends_on.s: condition: `now`: expected",
        ),
        ("depends_on: [s]", "F:4: depends_on: a circle: s -> s"),
        ("healthcheck: {test: [RUN, x]}", "F:4: healthcheck.test: expected [NONE]"),
        (
            "healthcheck: {interval: 5}",
            "F:4: service s: healthcheck: interval: `5`: expected a length",
        ),
        ("restart: sometimes", "F:4: service s: restart: expected no, on-failure"),
        ("mem_limit: much", "F:4: service s: mem_limit: `much`: expected a size"),
        (
            "deploy: {resources: {limits: {cpus: many}}}",
            "F:4: service s: deploy: resources.limits: cpus: `many`",
        ),
        ("deploy: {replicas: -1}", "F:4: service s: deploy: replicas: "),
        ("read_only: maybe", "F:4: service s: read_only: `maybe`: expected true or false"),
        ("cap_add: [NO_SUCH]", "F:4: service s: cap_add: `NO_SUCH` is no capability"),
        ("ulimits: {nosuch: 1}", "F:4: service s: ulimits.nosuch: `nosuch` is no resource"),
        (
            "ulimits:\n  nofile:\n    soft: 1",
            "F:5: service s: ulimits.nofile: expected soft and hard",
        ),
        ("stop_signal: SIGNOPE", "F:4: service s: stop_signal: no signal `SIGNOPE`"),
        ("stop_grace_period: long", "F:4: service s: stop_grace_period: `long`"),
        ("extra_hosts: ['a:x']", "F:4: service s: extra_hosts: `x` is no IP address"),
        ("hostname: 'a b'", "F:4: service s: hostname: "),
        ("secrets: [t]", "F:4: secrets: there is no `t` in the project"),
        ("pull_policy: hourly", "F:4: service s: pull_policy: `hourly`: expected always"),
        ("devices: [{target: /dev/x}]", "F:4: service s: devices: "),
        ("devices: [{source: /dev/null, permissions: x}]", "F:4: service s: devices: "),
        ("devices: [{source: /dev/null, speed: 1}]", "F:4: service s: devices: speed is unknown"),
        ("x-isolation: hardware", "F:4: service s: x-isolation: no isolation level `hardware`"),
        ("image: ${", "F:4: `image` is there twice"),
        ("working_dir: ${A", "F:4: `${A` is no interpolation"),
        ("working_dir: ${A:?give A}", "F:4: the variable A has no value: give A"),
        ("env_file: no-such-file", "cannot read "),
        ("extends: {service: t}", "F:4: extends: there is no service `t`"),
        ("extends: {service: s}", "F:4: extends: in the end itself"),
        ("extends: {file: no-such.yaml, service: t}", "cannot read "),
        ("container_name: -x", "F:4: service s: container_name: a name is"),
    ] {
        wrong.extend(unlike(&of_service(lines), told));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is told of this content, if it does not begin so.
fn unlike(content: &str, told: &str) -> Option<String> {
    let found = refusal(content);
    (!found.starts_with(told)).then(|| format!("{content}expected {told}\nfound {found}\n"))
}

#[test]
fn aliases_do_not_multiply_without_end() {
    let mut content = "x-0: &x0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*x{}", level - 1); 10].join(", ");
        content += &format!("x-{level}: &x{level} [{aliases}]\n");
    }
    let told = refusal(&content);
    assert!(told.contains("more than 100000 values"), "{told}");
    let deep = format!("x-0: {}{}\n", "[".repeat(200), "]".repeat(200));
    let told = refusal(&deep);
    assert!(told.contains("more than 64 levels"), "{told}");
}

/// A list in a list is nowhere what the specification has.
#[test]
fn every_key_of_a_service_looks_at_its_value() {
    for key in [
        "build",
        "cap_add",
        "cap_drop",
        "command",
        "configs",
        "container_name",
        "depends_on",
        "deploy",
        "devices",
        "entrypoint",
        "env_file",
        "environment",
        "expose",
        "extends",
        "extra_hosts",
        "healthcheck",
        "hostname",
        "image",
        "init",
        "labels",
        "logging",
        "mem_limit",
        "network_mode",
        "networks",
        "pids_limit",
        "ports",
        "privileged",
        "profiles",
        "pull_policy",
        "read_only",
        "restart",
        "scale",
        "secrets",
        "security_opt",
        "shm_size",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "user",
        "userns_mode",
        "volumes",
        "working_dir",
        "x-isolation",
    ] {
        let content = format!("services:\n  s:\n    {key}: [[x]]\n");
        let told = refusal(&content);
        assert!(told.starts_with("F:3: "), "{key}: {told}");
    }
}
