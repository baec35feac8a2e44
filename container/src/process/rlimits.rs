//! Resource limits of the process.

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use crate::error::{Error, Result};

/// One limit, ready for setrlimit(2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rlimit {
    resource: Resource,
    soft: u64,
    hard: u64,
}

impl Rlimit {
    pub(crate) fn from_oci(limits: &[PosixRlimit]) -> Result<Vec<Rlimit>> {
        let mut plan: Vec<Rlimit> = Vec::with_capacity(limits.len());
        for limit in limits {
            let resource = resource(limit.typ());
            if plan.iter().any(|earlier| earlier.resource == resource) {
                // OCI config.md, process.rlimits: duplicates are an error.
                return Err(Error::invalid(
                    "process.rlimits",
                    format!("{} given twice", limit.typ()),
                ));
            }
            if limit.soft() > limit.hard() {
                let problem = format!("{}: soft limit above hard limit", limit.typ());
                return Err(Error::invalid("process.rlimits", problem));
            }
            plan.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
        }
        Ok(plan)
    }

    /// Child: applies the limit.
    pub(crate) fn apply(&self) -> Result<(), Errno> {
        setrlimit(self.resource, self.soft, self.hard)
    }

    pub(crate) fn label(&self) -> String {
        format!("{:?} to {}/{}", self.resource, self.soft, self.hard)
    }
}

fn resource(typ: PosixRlimitType) -> Resource {
    use PosixRlimitType as Oci;
    match typ {
        Oci::RlimitCpu => Resource::RLIMIT_CPU,
        Oci::RlimitFsize => Resource::RLIMIT_FSIZE,
        Oci::RlimitData => Resource::RLIMIT_DATA,
        Oci::RlimitStack => Resource::RLIMIT_STACK,
        Oci::RlimitCore => Resource::RLIMIT_CORE,
        Oci::RlimitRss => Resource::RLIMIT_RSS,
        Oci::RlimitNproc => Resource::RLIMIT_NPROC,
        Oci::RlimitNofile => Resource::RLIMIT_NOFILE,
        Oci::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        Oci::RlimitAs => Resource::RLIMIT_AS,
        Oci::RlimitLocks => Resource::RLIMIT_LOCKS,
        Oci::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        Oci::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        Oci::RlimitNice => Resource::RLIMIT_NICE,
        Oci::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        Oci::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}
