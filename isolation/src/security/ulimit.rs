//! Resource limits of each process, as `NAME=SOFT[:HARD]`.

use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use serde::{Deserialize, Serialize};

use crate::error::IsolationError;

/// One resource limit (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Ulimit {
    /// Its place in [`NAMES`].
    index: usize,
    /// What holds; `u64::MAX` is no limit.
    pub soft: u64,
    /// How far a process may raise it.
    pub hard: u64,
}

/// podman's names, the specification's, and Linux's numbers (`asm-generic/resource.h`).
const NAMES: [(&str, PosixRlimitType, u32); 16] = [
    ("core", PosixRlimitType::RlimitCore, libc::RLIMIT_CORE),
    ("cpu", PosixRlimitType::RlimitCpu, libc::RLIMIT_CPU),
    ("data", PosixRlimitType::RlimitData, libc::RLIMIT_DATA),
    ("fsize", PosixRlimitType::RlimitFsize, libc::RLIMIT_FSIZE),
    ("locks", PosixRlimitType::RlimitLocks, libc::RLIMIT_LOCKS),
    ("memlock", PosixRlimitType::RlimitMemlock, libc::RLIMIT_MEMLOCK),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue, libc::RLIMIT_MSGQUEUE),
    ("nice", PosixRlimitType::RlimitNice, libc::RLIMIT_NICE),
    ("nofile", PosixRlimitType::RlimitNofile, libc::RLIMIT_NOFILE),
    ("nproc", PosixRlimitType::RlimitNproc, libc::RLIMIT_NPROC),
    ("rss", PosixRlimitType::RlimitRss, libc::RLIMIT_RSS),
    ("rtprio", PosixRlimitType::RlimitRtprio, libc::RLIMIT_RTPRIO),
    ("rttime", PosixRlimitType::RlimitRttime, libc::RLIMIT_RTTIME),
    ("sigpending", PosixRlimitType::RlimitSigpending, libc::RLIMIT_SIGPENDING),
    ("stack", PosixRlimitType::RlimitStack, libc::RLIMIT_STACK),
    ("as", PosixRlimitType::RlimitAs, libc::RLIMIT_AS),
];

impl Ulimit {
    /// `RLIMIT_NOFILE`.
    pub fn rlimit_name(&self) -> String {
        NAMES[self.index].1.to_string()
    }
}

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, limits) = text
            .split_once('=')
            .ok_or("expected NAME=SOFT[:HARD], for example nofile=1024:4096".to_owned())?;
        let index = NAMES.iter().position(|known| known.0 == name).ok_or_else(|| {
            let names = NAMES.map(|known| known.0).join(" ");
            format!("`{name}` is no resource; there are: {names}")
        })?;
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            text => text.parse().map_err(|_| format!("`{text}` is no limit; -1 is none")),
        };
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if soft > hard {
            return Err(format!("the soft limit {soft} is above the hard limit {hard}"));
        }
        Ok(Self { index, soft, hard })
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |limit: u64| match limit {
            u64::MAX => "-1".to_owned(),
            limit => limit.to_string(),
        };
        write!(f, "{}={}:{}", NAMES[self.index].0, number(self.soft), number(self.hard))
    }
}

impl TryFrom<String> for Ulimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ulimit> for String {
    fn from(limit: Ulimit) -> Self {
        limit.to_string()
    }
}

/// In the specification's words; of two for one resource the later one holds.
pub(super) fn to_oci(limits: &[Ulimit]) -> Result<Vec<PosixRlimit>, IsolationError> {
    let is_last = |(place, limit): &(usize, &Ulimit)| {
        limits[place + 1..].iter().all(|later| later.index != limit.index)
    };
    let one = |(_, limit): (usize, &Ulimit)| {
        let rlimit = PosixRlimitBuilder::default().typ(NAMES[limit.index].1);
        let rlimit = rlimit.soft(limit.soft).hard(limit.hard).build();
        rlimit.map_err(|error| IsolationError::Setting { field: "ulimit", why: error.to_string() })
    };
    limits.iter().enumerate().filter(is_last).map(one).collect()
}

/// Linux's number of it.
pub(super) fn number(kind: PosixRlimitType) -> Option<u32> {
    NAMES.into_iter().find(|known| known.1 == kind).map(|known| known.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_podman_s() {
        for (text, shown) in [
            ("nofile=1024:4096", "nofile=1024:4096"),
            ("nproc=64", "nproc=64:64"),
            ("core=-1", "core=-1:-1"),
            ("stack=8388608:unlimited", "stack=8388608:-1"),
        ] {
            assert_eq!(text.parse::<Ulimit>().unwrap().to_string(), shown);
        }
        for bad in ["", "nofile", "files=1", "nofile=", "nofile=2:1", "nofile=-2", "nofile=1:2:3"] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_later_of_two_holds() {
        let limits = ["nofile=1", "core=0", "nofile=2"].map(|text| text.parse().unwrap());
        let limits = to_oci(&limits).unwrap();
        let found: Vec<_> = limits.iter().map(|limit| (limit.typ(), limit.soft())).collect();
        assert_eq!(found, [(PosixRlimitType::RlimitCore, 0), (PosixRlimitType::RlimitNofile, 2)]);
    }
}
