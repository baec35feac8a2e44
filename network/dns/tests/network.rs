//! Networks as instances see them: namespaces as hosts and instances, real clients between them.
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::Barrier;
use std::time::Duration;

use isolab_network::{EndpointKind, NetworkError, in_namespace};
use nix::sched::{CloneFlags, unshare};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
use support::*;

const DEFAULT: &str = "isolab0";
/// The host, as the world knows it.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

fn here() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

#[test]
fn as_root_instances_reach_each_other_the_host_and_the_world() {
    let host = Host::new();
    let world = world();
    let own = here();
    let listener = inside(&world, || TcpListener::bind(("0.0.0.0", 80))).unwrap();
    std::thread::spawn(move || greet(&listener));
    let ports = ["8080:80", "127.0.0.1:8081:80", "9053:9053/udp", "8090-8091:80-81"];
    let web = attach(&host.networks, DEFAULT, "web", &ports);
    let db = attach(&host.networks, DEFAULT, "db", &[]);
    host.create("other", "");
    let other = attach(&host.networks, "other", "spy", &[]);
    web.serve(80);
    db.serve(5432);

    // Each other, and the gateway's services of the host.
    let say = |from: &OwnedFd, to: Ipv4Addr, port| greeting(from, (to, port), LIMIT).unwrap();
    assert_eq!(say(&web.namespace, db.address(), 5432), web.address().to_string());
    let listener = TcpListener::bind((db.endpoint.name_server(), 7000)).unwrap();
    std::thread::spawn(move || greet(&listener));
    assert_eq!(say(&db.namespace, db.endpoint.name_server(), 7000), db.address().to_string());
    // The world, as the host.
    assert_eq!(say(&db.namespace, WORLD, 80), OUTSIDE.to_string());
    // Published ports: from the world, the host by each of its addresses, the network itself, another.
    assert_eq!(say(&world, OUTSIDE, 8080), WORLD.to_string());
    assert_eq!(say(&own, OUTSIDE, 8080), OUTSIDE.to_string());
    let gateway = web.endpoint.name_server();
    assert_eq!(say(&own, Ipv4Addr::LOCALHOST, 8080), gateway.to_string());
    assert_eq!(say(&own, Ipv4Addr::LOCALHOST, 8081), gateway.to_string());
    assert_eq!(say(&own, Ipv4Addr::new(127, 0, 0, 9), 8090), gateway.to_string());
    assert_eq!(say(&db.namespace, OUTSIDE, 8080), gateway.to_string());
    assert_eq!(say(&web.namespace, OUTSIDE, 8080), gateway.to_string());
    assert_eq!(say(&other.namespace, OUTSIDE, 8080), gateway.to_string());
    assert_eq!(tool("curl", &["-sS", "http://127.0.0.1:8080/"]), gateway.to_string());
    let echo = inside(&web.namespace, || UdpSocket::bind(("0.0.0.0", 9053))).unwrap();
    let client = inside(&world, || UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.send_to(b"ping", (OUTSIDE, 9053)).unwrap();
    let mut buffer = [0; 16];
    let (length, peer) = echo.recv_from(&mut buffer).unwrap();
    echo.send_to(&buffer[..length], peer).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"ping"[..], SocketAddr::from((OUTSIDE, 9053))));

    // No way: another network, from the world past the ports, a port that is the loopback's alone, the
    // host's loopback, another network's names.
    let refused = |from: &OwnedFd, to: Ipv4Addr, port| {
        let answer = greeting(from, (to, port), NEVER);
        assert!(answer.is_err(), "{to}:{port}: {answer:?}");
    };
    refused(&other.namespace, db.address(), 5432);
    refused(&db.namespace, other.address(), 1);
    within(&world, "ip", &["route", "add", "10.210.0.0/16", "via", "198.51.100.1"]);
    refused(&world, db.address(), 5432);
    refused(&world, OUTSIDE, 8081);
    let listener = TcpListener::bind(("0.0.0.0", 7001)).unwrap();
    std::thread::spawn(move || greet(&listener));
    assert_eq!(say(&own, Ipv4Addr::new(127, 9, 9, 9), 7001), "127.0.0.1");
    for (from, via) in [(&db.namespace, gateway), (&world, OUTSIDE)] {
        within(from, "ip", &["route", "add", "127.9.9.9", "via", &via.to_string()]);
        within(from, "sysctl", &["-qw", "net.ipv4.conf.eth0.route_localnet=1"]);
        refused(from, Ipv4Addr::new(127, 9, 9, 9), 7001);
        refused(from, Ipv4Addr::new(127, 9, 9, 9), 8081);
    }
    assert!(look_up(&other.namespace, gateway, "db", TYPE::A, NEVER).is_err());

    // Names.
    let ask = |name: &str, kind| look_up(&db.namespace, gateway, name, kind, LIMIT);
    assert_eq!(ask("WEB", TYPE::A).unwrap(), [web.address().to_string()]);
    assert!(ask("web", TYPE::AAAA).unwrap().is_empty());
    let [a, b, c, d] = web.address().octets();
    assert_eq!(ask(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), TYPE::PTR).unwrap(), ["web"]);
    assert!(
        look_up(&other.namespace, other.endpoint.name_server(), "web", TYPE::A, LIMIT).is_err()
    );

    // With their ports the way to them goes, and connections of others stay.
    let address = web.address();
    web.endpoint.detach().unwrap();
    refused(&world, OUTSIDE, 8080);
    assert!(ask("web", TYPE::A).is_err());
    assert_ne!(attach(&host.networks, DEFAULT, "web", &[]).address(), address);
    for it in [db, other] {
        it.endpoint.detach().unwrap();
    }
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn as_root_ipv6_works_at_once_and_internal_networks_have_no_way_out() {
    let host = Host::new();
    let world = world();
    let mut new = new_network("six", "");
    (new.ipv6, new.internal) = (true, true);
    host.networks.create(new).unwrap();
    let [a, b] = ["a", "b"].map(|owner| attach(&host.networks, "six", owner, &[]));
    let address = b.endpoint.address6().unwrap().addr();
    let listener = inside(&b.namespace, || TcpListener::bind((address, 80))).unwrap();
    std::thread::spawn(move || greet(&listener));
    let own = a.endpoint.address6().unwrap().addr();
    assert_eq!(greeting(&a.namespace, (address, 80), LIMIT).unwrap(), own.to_string());
    let server = a.endpoint.name_server();
    assert_eq!(
        look_up(&a.namespace, server, "b", TYPE::AAAA, LIMIT).unwrap(),
        [address.to_string()]
    );
    // Nobody is asked who is outside.
    let error = look_up(&a.namespace, server, "example.org", TYPE::A, LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "NameError");
    assert_eq!(a.endpoint.gateway(), None);
    within(&a.namespace, "ip", &["route", "add", "default", "via", &server.to_string()]);
    let listener = inside(&world, || TcpListener::bind(("0.0.0.0", 80))).unwrap();
    std::thread::spawn(move || greet(&listener));
    assert!(greeting(&a.namespace, (WORLD, 80), NEVER).is_err());
    let refused = try_attach(&host.networks, "six", |it| it.ports = vec!["80:80".parse().unwrap()]);
    assert!(matches!(refused.err(), Some(NetworkError::Internal { .. })));
}

#[test]
fn as_root_the_host_s_own_rules_and_settings_stay_as_they_were() {
    let host = Host::new();
    // A new network namespace has it as the machine has.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    // Otherwise the rule below drops what is bridged, too. Not every kernel has it.
    let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
    tool(
        "nft",
        &[
            "add table inet mine { chain forward { type filter hook forward priority 0; policy drop; ip saddr 10.0.0.1 counter accept; }; }",
        ],
    );
    let settings = || {
        let mut all = tool("sysctl", &["-a", "--pattern", "^net\\.ipv[46]\\."])
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        all.retain(|line| !line.contains("isolab0"));
        all.sort();
        all
    };
    let (rules, before) = (tool("nft", &["list", "ruleset"]), settings());
    let web = attach(&host.networks, DEFAULT, "web", &["8080:80"]);
    let usage = host.networks.usage(&DEFAULT.parse().unwrap()).unwrap();
    assert_eq!(usage.host.forward_dropped_by.unwrap(), ["inet mine forward"]);
    assert_eq!(usage.host.input_dropped_by.unwrap(), [""; 0]);
    assert!(usage.host.ip_forward_set_by_isolab && usage.host.ip_forward);
    assert_eq!(usage.host.links, ["isolab0", &web.endpoint.lease().link()]);
    assert_eq!(usage.endpoints, [web.endpoint.lease().clone()]);
    // Who reloads his firewall takes ours with it; the next one to come brings it back, with all ports.
    web.serve(80);
    tool("nft", &["flush", "ruleset"]);
    let db = attach(&host.networks, DEFAULT, "db", &[]);
    assert!(greeting(here(), (Ipv4Addr::LOCALHOST, 8080), LIMIT).is_ok());
    std::fs::write(host.folder.path().join("rules"), &rules).unwrap();
    tool("nft", &["-f", host.folder.path().join("rules").to_str().unwrap()]);
    // Or removes the bridge.
    tool("ip", &["link", "delete", "isolab0"]);
    assert!(greeting(&db.namespace, (web.address(), 80), NEVER).is_err());
    let again = attach(&host.networks, DEFAULT, "again", &[]);
    assert!(greeting(&db.namespace, (web.address(), 80), LIMIT).is_ok());
    for it in [web, db, again] {
        it.endpoint.detach().unwrap();
    }
    assert_eq!(host.left(), [""; 0]);
    assert_eq!(tool("nft", &["list", "ruleset"]), rules);
    let changed: Vec<_> = settings().into_iter().filter(|line| !before.contains(line)).collect();
    // What the kernel does with ip_forward: it is every interface's own, too, and routers hear no redirects.
    let named = |line: &String| line.contains("forward") || line.contains("all.accept_redirects");
    assert!(changed.iter().all(named) && !changed.is_empty(), "{changed:?}");
}

#[test]
fn as_root_fifty_at_once_have_fifty_addresses() {
    let host = Host::new();
    let (own, barrier) = (here(), Barrier::new(50));
    let attached: Vec<Attached> = std::thread::scope(|scope| {
        let start = |number: usize| {
            let (own, barrier, networks) = (&own, &barrier, &host.networks);
            scope.spawn(move || {
                barrier.wait();
                let attached =
                    in_namespace(own, || Ok(attach(networks, DEFAULT, &format!("i{number}"), &[])));
                attached.unwrap()
            })
        };
        let threads: Vec<_> = (0..50).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut addresses: Vec<_> = attached.iter().map(Attached::address).collect();
    for (number, one) in attached.iter().enumerate() {
        let from = &attached[(number + 1) % 50].namespace;
        let found =
            look_up(from, one.endpoint.name_server(), &format!("i{number}"), TYPE::A, LIMIT);
        assert_eq!(found.unwrap(), [one.address().to_string()]);
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50);
    std::thread::scope(|scope| {
        for it in attached {
            let own = &own;
            scope.spawn(move || in_namespace(own, || it.endpoint.detach()).unwrap());
        }
    });
    assert_eq!(host.left(), [""; 0]);
}

/// A resolver of the host's loopback, whose first answers are not to the question.
fn answer_wrong_and_right(query: &[u8]) -> [Vec<u8>; 3] {
    let query = Packet::parse(query).unwrap();
    let reply = |id, name: &str, last| {
        let mut reply = Packet::new_reply(id);
        let name = Name::new(name).unwrap().into_owned();
        let (kind, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
        reply.questions.push(Question::new(name.clone(), kind, class, false));
        let data = RData::A(A::from(Ipv4Addr::new(192, 0, 2, last)));
        reply.answers.push(ResourceRecord::new(name, CLASS::IN, 9, data));
        reply.build_bytes_vec_compressed().unwrap()
    };
    let (id, name) = (query.id(), query.questions[0].qname.to_string());
    [reply(id ^ 1, &name, 1), reply(id, "evil.example", 2), reply(id, &name, 3)]
}

#[test]
fn as_root_other_names_are_the_host_s_resolvers_to_answer() {
    let host = Host::new();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let file = host.folder.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 10.210.0.1\nnameserver 127.0.0.1\n").unwrap();
    tool("mount", &["--make-rprivate", "/"]);
    tool("mount", &["--bind", file.to_str().unwrap(), "/etc/resolv.conf"]);
    let web = attach(&host.networks, DEFAULT, "web", &[]);
    let (server, from) = (web.endpoint.name_server(), &web.namespace);
    // Nobody is there yet.
    let error = look_up(from, server, "www.example", TYPE::A, LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "ServerFailure");
    let resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = resolver.recv_from(&mut query) {
            for reply in answer_wrong_and_right(&query[..length]) {
                resolver.send_to(&reply, client).unwrap();
            }
        }
    });
    assert_eq!(look_up(from, server, "www.example", TYPE::A, LIMIT).unwrap(), ["192.0.2.3"]);
    // By a stream: several questions, one of the network's own, an end in the middle of another.
    let resolver = TcpListener::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        for stream in resolver.incoming() {
            let mut stream = stream.unwrap();
            let mut query = vec![0; 512];
            let length = stream.read(&mut query).unwrap();
            let reply = &answer_wrong_and_right(&query[2..length])[2];
            stream.write_all(&[&(reply.len() as u16).to_be_bytes()[..], reply].concat()).unwrap();
        }
    });
    let mut stream = inside(from, || TcpStream::connect((server, 53))).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    for (name, last) in [("www.example", [192, 0, 2, 3]), ("web", web.address().octets())] {
        let query = query(name, TYPE::A);
        let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
        stream.write_all(&framed).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        assert!(reply.ends_with(&last), "{name}: {reply:?}");
    }
    stream.write_all(&[0, 40, 1, 2]).unwrap();
    drop(stream);
    assert_eq!(look_up(from, server, "web", TYPE::A, LIMIT).unwrap(), [web.address().to_string()]);
    web.endpoint.detach().unwrap();
    assert_eq!(host.left(), [""; 0]);
}

/// Not a test: what the next one kills.
#[test]
fn helper_attaches_until_it_is_killed() {
    let Ok(data) = std::env::var("ISOLAB_TEST_ATTACH") else { return };
    let networks = open(data.as_ref());
    for number in 0.. {
        let [a, b] = ["a", "b"].map(|owner| {
            attach(&networks, DEFAULT, &format!("{owner}{number}"), &["127.0.0.1::80"])
        });
        println!("attached");
        a.endpoint.detach().unwrap();
        drop(b);
    }
}

#[test]
fn as_root_what_kill_leaves_is_swept() {
    let host = Host::new();
    let survivor = attach(&host.networks, "isolab0", "survivor", &["127.0.0.1:8080:80"]);
    survivor.serve(80);
    let mut survivor = Some(survivor);
    for round in 0..30_u64 {
        if round == 15 {
            survivor.take().unwrap().endpoint.detach().unwrap();
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper_attaches_until_it_is_killed", "--nocapture"])
            .env("ISOLAB_TEST_ATTACH", host.folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // At a moment that differs, from before the first endpoint to after some.
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 16]).unwrap();
        std::thread::sleep(Duration::from_micros(round * round * 97));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "round {round}");
        host.networks.sweep().unwrap();
        match &survivor {
            None => assert_eq!(host.left(), [""; 0], "round {round}"),
            Some(it) => {
                let usage = host.networks.usage(&DEFAULT.parse().unwrap()).unwrap();
                assert_eq!(usage.endpoints, [it.endpoint.lease().clone()], "round {round}");
                assert!(
                    greeting(here(), (Ipv4Addr::LOCALHOST, 8080), LIMIT).is_ok(),
                    "round {round}"
                );
                let ports = tool("nft", &["list", "map", "inet", "isolab", "bound4"]);
                assert_eq!(ports.matches("tcp").count(), 1, "round {round}: {ports}");
            }
        }
    }
}

#[test]
fn as_root_bad_input_is_one_clear_error_and_leaves_nothing() {
    let host = Host::new();
    let networks = &host.networks;
    tool("ip", &["link", "add", "lan0", "type", "bridge"]);
    tool("ip", &["address", "add", "10.77.0.1/16", "dev", "lan0"]);
    tool("ip", &["link", "set", "lan0", "up"]);
    let create = |name: &str, subnet: &str| {
        networks
            .create(new_network(name, subnet))
            .map(|it| it.name.to_string())
            .map_err(|it| it.to_string())
    };
    assert_eq!(create("tiny", "10.8.0.0/30").unwrap(), "tiny");
    for (name, subnet, error) in [
        ("tiny", "10.9.0.0/24", "there is a network `tiny` already"),
        ("new", "10.8.0.0/16", "subnet 10.8.0.0/16 overlaps with network `tiny`"),
        (
            "new",
            "10.77.3.0/24",
            "subnet 10.77.3.0/24 overlaps with the host's route to 10.77.0.0/16",
        ),
        (
            "new",
            "10.9.0.1/24",
            "subnet 10.9.0.1/24: that is an address in it; a subnet's own ends in zeros",
        ),
    ] {
        assert_eq!(create(name, subnet).unwrap_err(), error);
    }
    let taken = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    let fails =
        |network: &str, error: &str, change: &dyn Fn(&mut isolab_network::EndpointRequest)| {
            let told = try_attach(networks, network, change).err().unwrap().to_string();
            assert_eq!(told, error);
        };
    fails("none-such", "there is no network `none-such`", &|_| {});
    fails("tiny", &format!("port {port}/tcp of the host is taken"), &|it| {
        it.ports = vec![port.parse().unwrap()]
    });
    let address = |address: &'static str| {
        move |it: &mut isolab_network::EndpointRequest| it.address = Some(address.parse().unwrap())
    };
    fails("tiny", "address 10.8.0.1 on network `tiny`: it is the gateway's", &address("10.8.0.1"));
    fails(
        "tiny",
        "address 10.8.0.3 on network `tiny`: it is no host's of 10.8.0.0/30",
        &address("10.8.0.3"),
    );
    fails(
        "tiny",
        "port [::]:80:80/tcp cannot lead to network `tiny`: it has no IPv6 addresses",
        &|it| {
            it.ports = vec!["[::]:80:80".parse().unwrap()];
        },
    );
    fails("tiny", "cannot make the pair of links isl0a080002", &|it| {
        let EndpointKind::Namespace { interface, .. } = &mut it.kind else { panic!() };
        *interface = "lo".to_owned();
    });
    assert_eq!(host.left(), [""; 0]);
    let one = attach(networks, "tiny", "one", &[]);
    fails("tiny", "address 10.8.0.2 on network `tiny`: it is `one`'s", &address("10.8.0.2"));
    fails("tiny", "network `tiny` has no free address: all 1 of 10.8.0.0/30 are taken", &|_| {});
    let tiny = "tiny".parse().unwrap();
    assert_eq!(networks.remove(&tiny).unwrap_err().to_string(), "network `tiny` is in use by one");
    assert_eq!(networks.prune().unwrap(), []);
    drop(one);
    assert_eq!(host.left(), [""; 0]);
    // Somebody else's link by the name of the bridge, his route, his name service.
    let bridge = networks.get(&tiny).unwrap().bridge;
    tool("ip", &["link", "add", &bridge, "type", "bridge"]);
    fails(
        "tiny",
        &format!("the host has a link `{bridge}` that is not of network `tiny`"),
        &|_| {},
    );
    tool("ip", &["link", "delete", &bridge]);
    tool("ip", &["route", "add", "10.8.0.0/24", "dev", "lan0"]);
    fails("tiny", "subnet 10.8.0.0/30 overlaps with the host's route to 10.8.0.0/24", &|_| {});
    tool("ip", &["route", "delete", "10.8.0.0/24"]);
    let theirs = UdpSocket::bind(("0.0.0.0", 53)).unwrap();
    fails("tiny", "cannot listen for names on 10.8.0.1:53", &|_| {});
    drop(theirs);
    assert_eq!(host.left(), [""; 0]);
    assert_eq!(networks.prune().unwrap(), [tiny]);
}

/// Not a test: what the next one runs as somebody else.
#[test]
fn helper_attaches_a_tap() {
    let Ok(data) = std::env::var("ISOLAB_TEST_TAP") else { return };
    let tap = request("vm", EndpointKind::Tap { queues: 1 });
    let attached = open(data.as_ref()).attach(&DEFAULT.parse().unwrap(), tap);
    println!("told: {}", attached.err().unwrap());
}

#[test]
fn as_root_who_may_not_and_who_lacks_something_is_told() {
    let host = Host::new();
    let data = host.folder.path();
    let told = |command: &[&str]| {
        let test = std::env::current_exe().unwrap();
        let output = std::process::Command::new(command[0])
            .args(&command[1..])
            .arg(test)
            .args(["--exact", "helper_attaches_a_tap", "--nocapture"])
            .env("ISOLAB_TEST_TAP", data)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        out.split_once("told: ")
            .unwrap_or_else(|| panic!("{out}"))
            .1
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    // All that root may, but for that.
    let no_admin = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    assert_eq!(told(&no_admin), "cannot make the bridge isolab0: that takes root (CAP_NET_ADMIN)");
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    tool("mount", &["--make-rprivate", "/"]);
    tool("mount", &["-t", "tmpfs", "tmpfs", "/dev/net"]);
    let tun = "cannot open /dev/net/tun, which the network of a virtual machine needs";
    assert_eq!(told(&["env"]), tun);
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn as_root_a_tap_is_on_the_network_as_long_as_its_descriptors() {
    let host = Host::new();
    let tap = request("vm", EndpointKind::Tap { queues: 2 });
    let endpoint = host.networks.attach(&DEFAULT.parse().unwrap(), tap).unwrap();
    assert_eq!(endpoint.taps().len(), 2);
    let lease = endpoint.lease().clone();
    let link = tool("ip", &["-o", "link", "show", &lease.link()]);
    assert!(link.contains("master isolab0") && link.contains(",UP"), "{link}");
    // Who has 10.210.0.1? (RFC 826)
    let mut tap = File::from(endpoint.taps()[0].try_clone().unwrap());
    let gateway = endpoint.name_server().octets();
    let header = [0; 10];
    let (mac, own) = (lease.mac.0, lease.address.octets());
    let arp =
        [&[0xFF; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &own, &[0; 6], &gateway]
            .concat();
    tap.write_all(&[&header[..], &arp].concat()).unwrap();
    let answered = |file: &OwnedFd| {
        let mut frame = [0; 1600];
        let length = File::from(file.try_clone().unwrap()).read(&mut frame).unwrap_or(0);
        length >= 52
            && frame[22..24] == [8, 6]
            && frame[30..32] == [0, 2]
            && frame[38..42] == gateway
    };
    eventually("an answer comes by one of the queues", || endpoint.taps().iter().any(answered));
    drop(tap);
    endpoint.detach().unwrap();
    assert_eq!(host.left(), [""; 0]);
}
