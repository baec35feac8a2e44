//! `isolab bench startup`, the part about services: from spawning `isolab run -d` to a TCP port that answers on the
//! host, and what a network costs a start.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use isolab_isolation::timeline;

use super::startup::{StartupError, StartupPlan, observe};
use crate::leftovers;
use crate::runner::{Figure, Workload};
use crate::subjects::Level;

/// From spawn of `isolab run -d` to its end: the instance runs in the background.
pub const TO_DETACHED: &str = "to_detached";
/// From spawn of `isolab run -d -p` to the first connection that the workload has accepted, from the host.
pub const TO_PORT: &str = "to_port";
/// To the first line of output, without a network.
pub const WITHOUT_NETWORK: &str = "to_first_output_network_none";
/// Likewise on a network that others use.
pub const ON_NETWORK: &str = "to_first_output_on_network";

/// What serves, and where.
const SERVICE: [&str; 5] = ["httpd", "-f", "-p", "80", "-v"];
/// An attempt to connect goes to somebody who is not there yet: it may take so long, and no longer.
const ATTEMPT: Duration = Duration::from_millis(20);
/// Between two attempts, and so the error of what is measured.
const PAUSE: Duration = Duration::from_micros(200);
/// A guest on an emulated host takes seconds.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A service at each subject's level, and the plan's command with and without a network: one with somebody on it, so
/// that no start has to make it. Both are removed with this.
pub struct Service<'a> {
    plan: &'a StartupPlan,
    name: String,
}

impl Workload for Service<'_> {
    type Error = StartupError;

    fn name(&self) -> &'static str {
        "service"
    }

    fn subjects(&self) -> Vec<String> {
        self.plan.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn other_work(&self, subject: &str) -> Option<String> {
        self.plan.subjects.iter().find(|it| it.name == subject)?.other_work.clone()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, StartupError> {
        let subject = &self.plan.subjects[subject];
        let [without, on] = ["none", &self.name].map(|network| self.first_output(subject, network));
        let (detached, port) = self.serve(subject)?;
        let figures = [
            (WITHOUT_NETWORK, without?),
            (ON_NETWORK, on?),
            (TO_DETACHED, detached),
            (TO_PORT, port),
        ];
        Ok(figures.map(|(metric, milliseconds)| Figure::new(metric, "ms", milliseconds)).into())
    }
}

impl<'a> Service<'a> {
    /// Makes the network, and puts somebody on it.
    ///
    /// # Errors
    /// [`StartupError`]: there is no network to be had here.
    pub fn new(plan: &'a StartupPlan) -> Result<Self, StartupError> {
        let network = Self { plan, name: format!("bench-{}", std::process::id()) };
        network.isolab("the network", &["network", "create", &network.name])?;
        let keeper = ["run", "-d", "--rm", "--name", &network.keeper(), "--network", &network.name];
        let keeper = [&keeper[..], &[&plan.image, "sleep", "86400"]].concat();
        network.isolab("the network's first user", &keeper)?;
        Ok(network)
    }

    fn keeper(&self) -> String {
        format!("{}-keeper", self.name)
    }

    fn first_output(&self, subject: &Level, network: &str) -> Result<f64, StartupError> {
        let mut command = self.run(subject, &["--network", network]);
        command.arg(&self.plan.image).args(&self.plan.command);
        let observed = observe(&mut command, &subject.name)?;
        Ok(milliseconds(observed.spawned, observed.first_output))
    }

    fn serve(&self, subject: &Level) -> Result<(f64, f64), StartupError> {
        let host = |action| {
            move |source| StartupError::Host { action, subject: subject.name.clone(), source }
        };
        let name = format!("{}-service", self.name);
        let port = free_port().map_err(host("find a port for"))?;
        let publish = format!("127.0.0.1:{port}:80");
        let options = ["-d", "--rm", "--name", &name, "--network", &self.name, "-p", &publish];
        let mut command = self.run(subject, &options);
        command.arg(&self.plan.image).args(SERVICE);
        leftovers::rest();
        let spawned = timeline::now();
        let output = output_of(&mut command).map_err(host("start"))?;
        let detached = timeline::now();
        succeeded(&output, &subject.name)?;
        let answered = await_port((Ipv4Addr::LOCALHOST, port).into()).map(|()| timeline::now());
        self.isolab(&subject.name, &["rm", "--force", &name])?;
        let answered = answered.map_err(host("reach the port of"))?;
        Ok((milliseconds(spawned, detached), milliseconds(spawned, answered)))
    }

    fn run(&self, subject: &Level, options: &[&str]) -> Command {
        let mut command = Command::new(&self.plan.program);
        let level = subject.level.name();
        command
            .args(["run", "--isolation", level])
            .args(&self.plan.options)
            .args(subject.options());
        command.args(options.iter().map(OsString::from));
        command
    }

    fn isolab(&self, subject: &str, words: &[&str]) -> Result<(), StartupError> {
        let mut command = Command::new(&self.plan.program);
        let output = output_of(command.args(words)).map_err(|source| StartupError::Host {
            action: "start",
            subject: subject.to_owned(),
            source,
        })?;
        succeeded(&output, subject)
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // What cannot be removed is there to be seen, by `isolab ps` and `isolab network ls`.
        let _ = self.isolab("the network's first user", &["rm", "--force", &self.keeper()]);
        let _ = self.isolab("the network", &["network", "rm", &self.name]);
    }
}

fn output_of(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

fn succeeded(output: &Output, subject: &str) -> Result<(), StartupError> {
    match output.status.success() {
        true => Ok(()),
        false => Err(StartupError::Workload {
            subject: subject.to_owned(),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
    }
}

/// One that nobody listens on now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn await_port(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match TcpStream::connect_timeout(&address, ATTEMPT) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn milliseconds(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_waited_for_until_somebody_listens() {
        let port = free_port().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let server = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            TcpListener::bind(address).unwrap().accept().unwrap();
        });
        let begun = Instant::now();
        await_port(address).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(50));
        server.join().unwrap();
    }
}
