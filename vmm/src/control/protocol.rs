//! What is said over the control socket: one JSON object a line in both directions.
//!
//! ```text
//! > {"command":"info"}
//! < {"ok":{"state":"running","pid":4711,"cpus":2,"memory":536870912,…}}
//! > {"command":"balloon","target":"much"}
//! < {"error":"the request is not understood: invalid type: string \"much\", expected u64 …"}
//! ```
//!
//! | command | further fields | `ok` |
//! |---|---|---|
//! | `info` | | [`Info`] |
//! | `pause`, `resume` | | [`Info`], once all vCPUs stand still or may run |
//! | `stop` | `grace_ms` (default 10000) | [`EndReply`]; presses the power button, resuming first |
//! | `kill` | | [`EndReply`] |
//! | `stats` | | [`crate::stats::Stats`], as `--stats --format json` prints |
//! | `balloon` | `target`, in bytes, optional | [`BalloonState`] |
//!
//! A connection may carry any number of requests; each is answered before the next is read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EndReason;
use crate::virtio::balloon::BalloonStats;

/// The longest request, in bytes without its line end.
pub const MAX_REQUEST: usize = 4096;

/// How long a guest may take to shut down after its power button was pressed, unless told
/// otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A longer grace is surely a mistake: a day.
pub const MAX_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// A request: one JSON object on a line of its own.
// Braces, because serde accepts unknown fields beside a variant without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the machine is and does.
    Info {},
    /// Make all vCPUs stand still.
    Pause {},
    /// Let them go on.
    Resume {},
    /// Press the power button; after the grace period, pull the plug.
    Stop {
        /// Milliseconds; by default [`DEFAULT_GRACE`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_ms: Option<u64>,
    },
    /// Pull the plug: the machine ends at once, without the guest's help.
    Kill {},
    /// How often the guest left for user space, and what the devices did.
    Stats {},
    /// The balloon's size and the guest's memory statistics.
    Balloon {
        /// Bytes that the guest shall give up; without, nothing changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<u64>,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// It was done; what the answer has depends on the request.
    Ok(T),
    /// It was not, and why.
    Error(String),
}

/// Whether the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its vCPUs may enter it.
    Running,
    /// Its vCPUs stand still.
    Paused,
    /// It has ended, and the VMM is about to.
    Ended,
}

/// Which board a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceSet {
    /// The paravirtual one: virtio devices, KVM's CPUID leaves and kvmclock.
    Virtio,
    /// A physical PC's: no hint of a hypervisor.
    Emulated,
}

/// A machine as its VMM sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// See [`RunState`].
    pub state: RunState,
    /// Process id of the VMM.
    pub pid: u32,
    /// The VMM's version, that of its package.
    pub version: String,
    /// Milliseconds since the first vCPU entered the guest.
    pub uptime_ms: u64,
    /// Virtual CPUs, running or not.
    pub cpus: u32,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// Which machine the guest sees.
    pub devices: DeviceSet,
    /// Whether there is a balloon to ask for memory.
    pub balloon: bool,
}

/// The answer to who asked for a machine's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReply {
    /// Always [`RunState::Ended`].
    pub state: RunState,
    /// Who or what ended it.
    pub reason: EndReason,
}

/// The balloon. Amounts in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonState {
    /// What the guest was asked to give up.
    pub target: u64,
    /// What it has given up by its own account.
    pub actual: u64,
    /// Its memory statistics, if its driver gives any.
    pub guest: Option<BalloonStats>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn requests_are_read_strictly() {
        assert_eq!(parse(r#"{"command":"info"}"#).unwrap(), Request::Info {});
        assert_eq!(parse(r#"{"command":"stop"}"#).unwrap(), Request::Stop { grace_ms: None });
        let balloon = Request::Balloon { target: Some(1 << 20) };
        assert_eq!(parse(r#"{"target":1048576,"command":"balloon"}"#).unwrap(), balloon);
        for bad in [
            "",
            "null",
            "[]",
            r#""info""#,
            r#"{"command":"explode"}"#,
            r#"{"command":"info","extra":1}"#,
            r#"{"command":"balloon","target":-1}"#,
            r#"{"command":"balloon","target":1e30}"#,
            r#"{"command":"info"} {"command":"info"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_and_replies_are_written_as_documented() {
        let text = |request| serde_json::to_string(&request).unwrap();
        assert_eq!(text(Request::Pause {}), r#"{"command":"pause"}"#);
        assert_eq!(text(Request::Stop { grace_ms: None }), r#"{"command":"stop"}"#);
        let ended = EndReply { state: RunState::Ended, reason: EndReason::PowerOff };
        let reply = serde_json::to_string(&Reply::Ok(ended)).unwrap();
        assert_eq!(reply, r#"{"ok":{"state":"ended","reason":"power_off"}}"#);
        let reply = serde_json::to_string(&Reply::<()>::Error("no".into())).unwrap();
        assert_eq!(reply, r#"{"error":"no"}"#);
    }
}
