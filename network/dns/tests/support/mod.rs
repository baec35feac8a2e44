//! A host of its own for each test: a network namespace with a loopback interface, and beside it a world.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use isolab_network::{
    Endpoint, EndpointKind, EndpointRequest, Folders, NetworkError, NetworkName, Networks,
    NewNetwork, in_namespace, new_namespace,
};
use nix::sched::{CloneFlags, unshare};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

/// Generous: what is waited for comes in milliseconds.
pub const LIMIT: Duration = Duration::from_secs(20);
/// For what is not to come.
pub const NEVER: Duration = Duration::from_millis(300);

/// The host of one test, whose thread is in it from now on.
pub struct Host {
    pub networks: Networks,
    pub folder: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tool("ip", &["link", "set", "lo", "up"]);
        let folder = tempfile::tempdir().unwrap();
        let networks = open(folder.path());
        Self { networks, folder }
    }

    pub fn create(&self, name: &str, subnet: &str) -> NetworkName {
        let new = new_network(name, subnet);
        self.networks.create(new).unwrap().name
    }

    /// What of ours is on the host: links, tables, processes, folders.
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<_> = tool("ip", &["-o", "link"]).lines().map(str::to_owned).collect();
        left.retain(|line| line.contains("isl") || line.contains("isolab"));
        left.extend(
            tool("nft", &["list", "tables"])
                .lines()
                .filter(|it| it.contains("isolab"))
                .map(str::to_owned),
        );
        let runtime = Folders::of(self.folder.path()).runtime;
        let entries = std::fs::read_dir(&runtime).unwrap().map(|it| it.unwrap().path());
        left.extend(entries.filter(|it| it.is_dir()).map(|it| it.display().to_string()));
        left.extend(processes(self.folder.path().to_str().unwrap()));
        left
    }
}

pub fn open(data: &std::path::Path) -> Networks {
    Networks::open(Folders::of(data), env!("CARGO_BIN_EXE_isolab-dns").into()).unwrap()
}

pub fn new_network(name: &str, subnet: &str) -> NewNetwork {
    NewNetwork {
        name: name.parse().unwrap(),
        subnet: (!subnet.is_empty()).then(|| subnet.parse().unwrap()),
        gateway: None,
        ipv6: false,
        internal: false,
        labels: BTreeMap::new(),
    }
}

/// The command lines of processes that have this in an argument, but for ours and zombies.
fn processes(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path().join("cmdline");
        let line = std::fs::read(path).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("isolab-dns") && line.contains(word) {
            found.push(line);
        }
    }
    found
}

/// Something that was attached, and where it is.
pub struct Attached {
    pub namespace: OwnedFd,
    pub endpoint: Endpoint,
}

impl Attached {
    pub fn address(&self) -> Ipv4Addr {
        self.endpoint.lease().address
    }

    /// Listens in there, and answers each connection with the peer's address.
    pub fn serve(&self, port: u16) {
        let any = SocketAddr::from(([0, 0, 0, 0], port));
        let listener = inside(&self.namespace, || TcpListener::bind(any)).unwrap();
        std::thread::spawn(move || greet(&listener));
    }
}

pub fn greet(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let peer = stream.peer_addr().unwrap().ip().to_string();
        let mut request = [0; 1024];
        // A line of the client's, or a request of curl's.
        let _ = stream.read(&mut request);
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{peer}", peer.len());
    }
}

pub fn request(owner: &str, kind: EndpointKind) -> EndpointRequest {
    EndpointRequest {
        owner: owner.to_owned(),
        names: vec![owner.parse().unwrap()],
        address: None,
        mac: None,
        ports: Vec::new(),
        kind,
    }
}

pub fn interface(namespace: &OwnedFd) -> EndpointKind {
    EndpointKind::Namespace {
        namespace: namespace.try_clone().unwrap(),
        interface: "eth0".to_owned(),
    }
}

pub fn try_attach(
    networks: &Networks,
    network: &str,
    change: impl FnOnce(&mut EndpointRequest),
) -> Result<Attached, NetworkError> {
    let namespace = new_namespace().unwrap();
    let mut request = request("web", interface(&namespace));
    change(&mut request);
    let endpoint = networks.attach(&network.parse().unwrap(), request)?;
    Ok(Attached { namespace, endpoint })
}

pub fn attach(networks: &Networks, network: &str, owner: &str, ports: &[&str]) -> Attached {
    let attached = try_attach(networks, network, |request| {
        request.owner = owner.to_owned();
        request.names = vec![owner.parse().unwrap()];
        request.ports = ports.iter().map(|port| port.parse().unwrap()).collect();
    });
    attached.unwrap()
}

/// What a call of the standard library says in a namespace.
pub fn inside<T: Send>(
    namespace: impl AsFd,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    in_namespace(namespace, || Ok(act())).unwrap()
}

/// Says a line and reads what a greeting server thinks who we are.
pub fn greeting(
    from: impl AsFd,
    to: (impl Into<IpAddr>, u16),
    within: Duration,
) -> io::Result<String> {
    let to = SocketAddr::new(to.0.into(), to.1);
    inside(from, move || {
        let mut stream = TcpStream::connect_timeout(&to, within)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"hello\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.split_once("\r\n\r\n").unwrap().1.to_owned())
    })
}

/// A question in the name service's form.
pub fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(7);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    query.questions.push(Question::new(Name::new(name).unwrap(), kind, class, false));
    query.build_bytes_vec().unwrap()
}

/// Asks the name service, as a client in `from`.
pub fn look_up(
    from: impl AsFd,
    server: Ipv4Addr,
    name: &str,
    kind: TYPE,
    within: Duration,
) -> io::Result<Vec<String>> {
    let query = query(name, kind);
    let reply = inside(from, || {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.set_read_timeout(Some(within))?;
        socket.connect((server, 53))?;
        socket.send(&query)?;
        let mut reply = vec![0; 1500];
        let length = socket.recv(&mut reply)?;
        reply.truncate(length);
        Ok(reply)
    })?;
    let packet = Packet::parse(&reply).unwrap();
    let show = |data: &RData| match data {
        RData::A(a) => Ipv4Addr::from(a.address).to_string(),
        RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
        RData::PTR(name) => name.0.to_string(),
        other => panic!("{other:?}"),
    };
    let code = format!("{:?}", packet.rcode());
    match code.as_str() {
        "NoError" => Ok(packet.answers.iter().map(|record| show(&record.rdata)).collect()),
        _ => Err(io::Error::other(code)),
    }
}

/// A namespace that the host reaches by 198.51.100.0/24, where it is .1 and the world .2.
pub fn world() -> OwnedFd {
    let world = new_namespace().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), world.as_raw_fd());
    tool("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &path]);
    tool("ip", &["address", "add", "198.51.100.1/24", "dev", "up0"]);
    tool("ip", &["link", "set", "up0", "up"]);
    within(&world, "ip", &["address", "add", "198.51.100.2/24", "dev", "eth0"]);
    within(&world, "ip", &["link", "set", "eth0", "up"]);
    world
}

pub fn within(namespace: impl AsFd, program: &str, arguments: &[&str]) -> String {
    in_namespace(namespace, || Ok(tool(program, arguments))).unwrap()
}

pub fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let (out, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    out
}

/// Waits until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
