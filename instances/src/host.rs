//! What this host can do, with what instances have beside their level: networks.

use error_reporter::Report;
use isolab_isolation::Level;
use isolab_isolation::host::{self, Fact, HostReport};
use isolab_network::try_user_mode;
use nix::unistd::geteuid;

/// As [`host::inspect`]. For a user who is not root it also tries what takes the place of the host's networks, and says
/// at which levels that is missing.
pub fn inspect() -> HostReport {
    let mut report = host::inspect();
    if geteuid().is_root() {
        return report;
    }
    let tried = try_user_mode().map_err(|error| Report::new(error).to_string());
    let (ok, found) = match &tried {
        Ok(()) => (true, "connect an instance each"),
        Err(why) => (false, &why[..]),
    };
    let name = "networks without root".to_owned();
    report.facts.push(Fact { name, ok, found: found.to_owned() });
    for verdict in report.levels.iter_mut().filter(|it| it.ready) {
        let networks = match (verdict.level, &tried) {
            // It takes root itself.
            (Level::Process, _) => continue,
            (Level::Fullvirt, _) => "networks but taps that root made".to_owned(),
            (_, Err(why)) => format!("networks: {why}"),
            (_, Ok(())) => continue,
        };
        verdict.without = Some(match verdict.without.take() {
            None => networks,
            Some(others) => format!("{others}; and without {networks}"),
        });
    }
    report
}
