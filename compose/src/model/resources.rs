//! `deploy`, and the limits that were a service's own before it.

use isolab_instances::RestartPolicy;
use isolab_isolation::parse_size;

use super::fields::Fields;
use crate::error::ComposeError;

/// How much a service may use, and of how many instances it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Bytes of memory: a cgroup's limit, or a guest's RAM.
    pub memory: Option<u64>,
    /// Processors: a cgroup's quota or a guest's vCPUs.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Instances.
    pub replicas: Option<u32>,
    /// When they are started again.
    pub restart: Option<RestartPolicy>,
}

fn cpus(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|cpus| cpus.is_finite() && *cpus >= 0.0);
    number.ok_or_else(|| format!("`{}`: expected a number of processors", text.escape_debug()))
}

/// -1 and 0 are no limit.
fn pids(text: &str) -> Result<u32, String> {
    match text.parse::<i64>().map(u32::try_from) {
        Ok(Ok(limit)) => Ok(limit),
        Ok(Err(_)) if text == "-1" => Ok(0),
        _ => Err(format!("`{}`: expected a number of processes", text.escape_debug())),
    }
}

impl Resources {
    pub(super) fn read(fields: &mut Fields, what: &str) -> Result<Self, ComposeError> {
        let mut resources = Self {
            memory: fields.read("mem_limit", parse_size)?,
            cpus: fields.read("cpus", cpus)?,
            pids: fields.read("pids_limit", pids)?,
            replicas: fields.parse("scale")?,
            restart: None,
        };
        if let Some(deploy) = fields.take("deploy") {
            resources.deploy(Fields::of(deploy, format!("{what}: deploy"))?)?;
        }
        resources.memory = resources.memory.filter(|limit| *limit != 0);
        resources.cpus = resources.cpus.filter(|limit| *limit != 0.0);
        resources.pids = resources.pids.filter(|limit| *limit != 0);
        Ok(resources)
    }

    fn deploy(&mut self, mut deploy: Fields) -> Result<(), ComposeError> {
        let place = deploy.place.clone();
        self.replicas = deploy.parse("replicas")?.or(self.replicas);
        let mode = deploy.text("mode")?;
        if let Some(mode) = mode.filter(|mode| mode != "replicated") {
            let what = deploy.name(&format!("mode {mode}"));
            return Err(ComposeError::unsupported(&place, what, "a host has replicas"));
        }
        if let Some(node) = deploy.take("resources") {
            let mut resources = Fields::of(node, deploy.name("resources"))?;
            if let Some(node) = resources.take("limits") {
                let mut limits = Fields::of(node, deploy.name("resources.limits"))?;
                self.memory = limits.read("memory", parse_size)?.or(self.memory);
                self.cpus = limits.read("cpus", cpus)?.or(self.cpus);
                self.pids = limits.read("pids", pids)?.or(self.pids);
                limits.finish(&[])?;
            }
            resources.finish(&[("reservations", "nothing is set aside; limits are kept")])?;
        }
        if let Some(node) = deploy.take("restart_policy") {
            let mut policy = Fields::of(node, deploy.name("restart_policy"))?;
            let times = policy.parse::<u32>("max_attempts")?;
            let restart = policy.read("condition", |word| match word {
                "none" => Ok(RestartPolicy::No),
                "on-failure" => Ok(RestartPolicy::OnFailure(times)),
                "any" => Ok(RestartPolicy::Always),
                other => Err(format!("`{other}`: expected none, on-failure or any")),
            })?;
            self.restart = Some(restart.unwrap_or(RestartPolicy::Always));
            policy.finish(&[
                ("delay", "pauses are 100 ms at first and twice as long each time"),
                ("window", "a workload that ran for 10 seconds has started well"),
            ])?;
        }
        // Of the service of a swarm, which instances do not have.
        deploy.take("labels");
        deploy.finish(&[
            ("endpoint_mode", "there is no swarm"),
            ("placement", "there is one host"),
            ("rollback_config", "instances are made anew, not rolled back"),
            ("update_config", "instances are made anew one service after the other"),
        ])
    }
}
