//! The options that most command lines are made of.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the text is --help's, where brackets are what may be left out"
)]

use isolab_command::format::parse_size;
use isolab_isolation::{InstanceName, Level};

use super::network::NetworkOptions;

/// A start waits until its options are made, each of which takes some 20 µs: a command line of these alone is read
/// without the others ([`Seldom`](super::Seldom)). Nothing here may refer to one of those.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// process, container, paravirt or fullvirt.
    #[arg(long, value_name = "LEVEL", default_value = "container")]
    pub isolation: Level,
    /// Pass our standard input on.
    #[arg(long, short)]
    pub interactive: bool,
    /// Give the command a terminal of its own; in the foreground it is shown on ours, and with -i what is
    /// typed on ours goes there.
    #[arg(long, short)]
    pub tty: bool,
    /// Set an environment variable; without a value, pass on our own.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Working directory.
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User and group, by name or number.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// What the command is given to, instead of the image's entrypoint; "" is none. A JSON array is
    /// several words.
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// The instance's name, which no other one has; by default a random one.
    #[arg(long, value_name = "NAME")]
    pub name: Option<InstanceName>,
    /// Memory limit, in bytes or with K, M, G or T: a cgroup's limit, or the guest's RAM
    /// (512M without it). 0 is no limit.
    #[arg(long, short, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// CPU limit: a cgroup's quota, or, rounded up, the guest's vCPUs (1 without it). 0 is no limit.
    #[arg(long, value_name = "N")]
    pub cpus: Option<f64>,
    #[command(flatten)]
    pub network: NetworkOptions,
    /// Show a folder or file of the host, or a volume, at a path: HOST:PATH[:OPTIONS] with a path that has a slash,
    /// NAME:PATH[:OPTIONS], or PATH alone for an anonymous volume, which goes with the instance. A volume that is
    /// not there is made, with what the image has at the path. Options: ro, rw, nocopy, noexec, exec, nosuid, suid,
    /// nodev, dev, rbind, bind, rprivate and the like; z and Z without effect, as nothing here is labelled.
    #[arg(long, short, value_name = "VOLUME")]
    pub volume: Vec<String>,
    /// Guest kernel of the VM levels: slim, stock, cloud, or a vmlinux or bzImage. By default that of $ISOLAB_KERNEL,
    /// else at paravirt the first of these that there is, and at fullvirt stock.
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<String>,
    /// Remove the instance when it ends. In the foreground without --restart that is always so.
    #[arg(long)]
    pub rm: bool,
    /// The image: a name, or a digest.
    pub image: String,
    /// The command and its arguments; by default the image's own.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}
