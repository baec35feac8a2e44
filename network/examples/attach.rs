//! What an endpoint costs, in microseconds: `attach ISOLAB-DNS [RUNS]`, as root. It works in a network
//! namespace and a folder of its own. Under `scripts/kvm-host run --icount` figures repeat.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use isolab_network::{
    DEFAULT_NETWORK, EndpointKind, EndpointRequest, Folders, Networks, in_namespace, new_namespace,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let responder = PathBuf::from(arguments.next().ok_or("attach ISOLAB-DNS [RUNS]")?);
    let runs = arguments.next().and_then(|it| it.to_str()?.parse().ok()).unwrap_or(20_usize);
    let folder = std::env::temp_dir().join(format!("isolab-attach-{}", std::process::id()));
    let networks = Networks::open(Folders::of(&folder), responder)?;
    let host = new_namespace()?;
    let mut taken: BTreeMap<&str, Vec<u128>> = BTreeMap::new();
    in_namespace(&host, || {
        for _ in 0..runs {
            let mut endpoints = Vec::new();
            for (what, ports) in [
                ("attach, first", &[][..]),
                ("attach, second", &[]),
                ("attach, third, with a port", &["80"]),
            ] {
                let namespace = new_namespace()?;
                let request = EndpointRequest {
                    owner: what.to_owned(),
                    names: Vec::new(),
                    address: None,
                    mac: None,
                    ports: ports.iter().filter_map(|port| port.parse().ok()).collect(),
                    kind: EndpointKind::Namespace { namespace, interface: "eth0".to_owned() },
                };
                let start = Instant::now();
                endpoints.push(networks.attach(&DEFAULT_NETWORK.parse()?, request)?);
                taken.entry(what).or_default().push(start.elapsed().as_micros());
            }
            for what in ["detach, with a port", "detach", "detach, last"] {
                if let Some(endpoint) = endpoints.pop() {
                    let start = Instant::now();
                    endpoint.detach()?;
                    taken.entry(what).or_default().push(start.elapsed().as_micros());
                }
            }
        }
        Ok(())
    })?;
    std::fs::remove_dir_all(&folder)?;
    println!("{:<28} {:>7} {:>7} {:>7}", "microseconds", "min", "median", "max");
    for (what, mut times) in taken {
        times.sort_unstable();
        let (first, last) = (times[0], times[times.len() - 1]);
        println!("{what:<28} {first:>7} {:>7} {last:>7}", times[times.len() / 2]);
    }
    Ok(())
}
