//! `--net tap[=NAME][,option]...`: what the operator wrote, as [`NetOptions`].

use std::os::fd::RawFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BadMacAddress, MacAddress};
use crate::backend::poll_limit::PollLimit;
use crate::rate_limit::RateLimit;

/// Where the frames of a `--net` go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapSource {
    /// A tap that exists, or is made under this name.
    Named(String),
    /// A new one, named by the kernel: isolab0, isolab1 …
    New,
    /// Open descriptors of a tap, one per queue pair, with IFF_NO_PI and IFF_VNET_HDR set.
    Descriptors(Vec<RawFd>),
    /// No tap: a connected stream socket ([`FrameStream`](crate::backend::frame_stream::FrameStream)), for one queue pair.
    Stream(RawFd),
}

/// A network as the command line has it: `tap[=NAME][,option]...`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetOptions {
    /// See [`TapSource`].
    pub tap: TapSource,
    /// The guest's address; a random one if not given.
    pub mac: Option<MacAddress>,
    /// The MTU the guest is told, 68 to 65535; the tap's own if not given.
    pub mtu: Option<u16>,
    /// Queue pairs, 1 to [`MAX_QUEUE_PAIRS`]; if not given, one for each vCPU where the tap has as many.
    #[serde(default)]
    pub queue_pairs: Option<u16>,
    /// Whether the host kernel moves the frames (vhost-net); if not given, where it can: there is the device and a tap,
    /// and no rate limit.
    #[serde(default)]
    pub vhost: Option<bool>,
    /// How fast frames may go, in each direction. Not with vhost.
    #[serde(default)]
    pub rate: RateLimit,
    /// How long a pair's thread looks for frames; if not given, [`PollLimit::default`] here and never in the host's
    /// kernel, which does not learn whether it pays.
    #[serde(default)]
    pub poll: Option<PollLimit>,
}

/// The kernel's limit on queues of a tap is 256; the transport's on queues of a device is 255.
pub const MAX_QUEUE_PAIRS: u16 = 64;

/// A `--net` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetOptionsError {
    /// Not an option we know.
    #[error(
        "net option `{0}` is unknown; there are tap[=NAME], fds=N[:N]..., mac=, mtu=, queues=, \
         vhost=on|off, poll=, bps= and pps="
    )]
    Unknown(String),
    /// An option's value is not among its choices.
    #[error("net option {option}={value}: expected {expected}")]
    Value {
        /// The part before the `=`.
        option: &'static str,
        /// The part behind the `=`, as it was given.
        value: String,
        /// What could have been.
        expected: &'static str,
    },
    /// Neither a tap nor descriptors.
    #[error("a network needs a back end: tap[=NAME] or fds=N[:N]...")]
    NoBackend,
    /// `mac=` is not followed by an Ethernet address.
    #[error(transparent)]
    Mac(#[from] BadMacAddress),
    /// The host kernel does not count.
    #[error("net: vhost=on has no rate limits; leave out bps= and pps=, or vhost")]
    VhostRate,
}

impl FromStr for NetOptions {
    type Err = NetOptionsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut options = Self::default();
        let mut tap = None;
        for part in text.split(',') {
            let (option, value) = part.split_once('=').unwrap_or((part, ""));
            match option {
                "tap" if value.is_empty() => tap = Some(TapSource::New),
                "tap" => tap = Some(TapSource::Named(value.to_owned())),
                "fds" => {
                    let fds: Vec<RawFd> = value
                        .split(':')
                        .map(|fd| parse("fds", fd, "open descriptors, as 3 or 3:4"))
                        .collect::<Result<_, _>>()?;
                    options.queue_pairs = Some(u16::try_from(fds.len()).unwrap_or(u16::MAX));
                    tap = Some(TapSource::Descriptors(fds));
                }
                "mac" => options.mac = Some(value.parse()?),
                "mtu" => options.mtu = Some(parse("mtu", value, "68 to 65535")?),
                "queues" => options.queue_pairs = Some(parse("queues", value, "1 to 64")?),
                "vhost" => {
                    options.vhost = match value {
                        "on" => Some(true),
                        "off" => Some(false),
                        _ => return Err(bad("vhost", value, "on or off")),
                    }
                }
                "poll" => options.poll = Some(parse("poll", value, PollLimit::EXPECTED)?),
                "bps" => {
                    let rate = parse("bps", value, "bytes a second, above 0")?;
                    options.rate.bytes_per_second = Some(rate);
                }
                "pps" => {
                    let rate = parse("pps", value, "frames a second, above 0")?;
                    options.rate.operations_per_second = Some(rate);
                }
                _ => return Err(NetOptionsError::Unknown(part.to_owned())),
            }
        }
        options.tap = tap.ok_or(NetOptionsError::NoBackend)?;
        if options.vhost == Some(true) && options.rate != RateLimit::default() {
            return Err(NetOptionsError::VhostRate);
        }
        Ok(options)
    }
}

fn bad(option: &'static str, value: &str, expected: &'static str) -> NetOptionsError {
    NetOptionsError::Value { option, value: value.to_owned(), expected }
}

fn parse<T: FromStr>(
    option: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, NetOptionsError> {
    value.parse().map_err(|_| bad(option, value, expected))
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            tap: TapSource::New,
            mac: None,
            mtu: None,
            queue_pairs: None,
            vhost: None,
            rate: RateLimit::default(),
            poll: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_understood() {
        let text = "tap=vm0,mac=02:00:00:00:00:01,mtu=9000,queues=4,bps=1000000,pps=500,poll=50";
        let options: NetOptions = text.parse().unwrap();
        assert_eq!(options.tap, TapSource::Named("vm0".into()));
        assert_eq!(options.mac, Some(MacAddress([2, 0, 0, 0, 0, 1])));
        assert_eq!((options.mtu, options.queue_pairs, options.vhost), (Some(9000), Some(4), None));
        assert_eq!(options.rate.bytes_per_second.unwrap().get(), 1_000_000);
        assert_eq!(options.rate.operations_per_second.unwrap().get(), 500);
        assert_eq!(options.poll, Some(PollLimit::from_micros(50)));
        let options: NetOptions = "fds=3:4,vhost=on".parse().unwrap();
        assert_eq!(options.tap, TapSource::Descriptors(vec![3, 4]));
        assert_eq!((options.queue_pairs, options.vhost), (Some(2), Some(true)));
        assert_eq!("tap".parse::<NetOptions>().unwrap().tap, TapSource::New);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("", "option `` is unknown"),
            ("mac=02:00:00:00:00:01", "needs a back end"),
            ("tap,speed=1", "option `speed=1` is unknown"),
            ("tap,mac=1", "`1` is no address"),
            ("tap,mtu=70000", "mtu=70000: expected 68 to 65535"),
            ("tap,queues=x", "queues=x: expected"),
            ("tap,vhost=yes", "vhost=yes: expected on or off"),
            ("tap,poll=fast", "poll=fast: expected microseconds"),
            ("tap,bps=0", "bps=0: expected bytes a second"),
            ("tap,vhost=on,pps=1", "vhost=on has no rate limits"),
            ("fds=a", "fds=a: expected open descriptors"),
        ] {
            let error = text.parse::<NetOptions>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
