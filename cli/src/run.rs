//! `isolab run`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use error_reporter::Report;
use isolab_command::format::{EXIT_OWN_FAILURE, parse_size};
use isolab_command::logging::Logging;
use isolab_command::{failure, signals};
use isolab_images::{Image, Store};
use isolab_isolation::timeline::{Milestone, now};
use isolab_isolation::{
    InstanceName, InstanceSpec, Instances, IsolationError, Level, Limits, Network, Request, Stdio,
    level, parse_hostname,
};
use isolab_vmm::teardown;
use tracing::{debug_span, enabled, info_span};

use crate::obtain::Obtain;
use crate::terminal::{self, Terminal};

/// Run a command in an image, at one of the four levels of isolation.
///
/// Output, exit code, environment and signals are the same at each level; a signal to isolab is the
/// command's, but for KILL, STOP, CHLD, URG, PIPE and a terminal's TTIN and TTOU. Exits with the
/// command's own code, with 128 and the signal's number when a signal ended it, with 127 when
/// there is no such command, with 126 when it cannot be executed, and with 125 when isolab itself
/// failed or was called wrongly.
///
/// At paravirt and fullvirt the guest has the say over its command. So the first SIGINT, SIGTERM, SIGHUP
/// or SIGQUIT is passed on to the command, or ends a machine whose guest has not come up; a second
/// one ends the machine (137), and so do 10 seconds after a SIGTERM. What the command reads and writes
/// passes through a virtio socket at paravirt, and at fullvirt through a serial port and, where it is more
/// than a line, a small IDE disk in memory, which the guest sees beside its two.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    isolab run busybox uname -a\n  \
    isolab run --isolation paravirt --memory 128M -e GREETING=hello busybox sh -c 'echo $GREETING'")]
pub struct Args {
    /// process, container, paravirt or fullvirt.
    #[arg(long, value_name = "LEVEL", default_value = "container")]
    isolation: Level,
    /// Pass our standard input on.
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal of its own, shown on ours; with -i, what is typed on ours goes there.
    /// The levels process and container have one so far.
    #[arg(long, short)]
    tty: bool,
    /// Set an environment variable; without a value, pass on our own.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Working directory.
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group, by name or number.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Host name; by default the instance's name. Not at level process, which has none of its own.
    #[arg(long, value_name = "NAME", value_parser = parse_hostname)]
    hostname: Option<String>,
    /// The instance's name, which no other running one has; by default a random one.
    #[arg(long, value_name = "NAME")]
    name: Option<InstanceName>,
    /// Memory limit, in bytes or with K, M, G or T: a cgroup's limit, or the guest's RAM
    /// (512M without it). 0 is no limit.
    #[arg(long, short, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// CPU limit: a cgroup's quota, or, rounded up, the guest's vCPUs (1 without it). 0 is no limit.
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// How many processes and threads there may be; process and container only. -1 or 0 is no limit.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..=u32::MAX.into()))]
    pids_limit: Option<i64>,
    /// Connect the instance: tap[=NAME],ip=ADDRESS/PREFIX[,gateway=ADDRESS], and what `isolab vm run
    /// --net` takes besides; paravirt and fullvirt only. The host's end of the tap is yours to set
    /// up. Without it, process has the host's network and the others none.
    #[arg(long, value_name = "NETWORK")]
    network: Option<Network>,
    /// Guest kernel of the VM levels: slim, stock, cloud, or a vmlinux or bzImage.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Remove the instance when it ends. Always so; here for podman's users.
    #[arg(long)]
    rm: bool,
    /// Write the times of the instance's milestones, in nanoseconds of CLOCK_MONOTONIC, to this
    /// file as JSON.
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,
    #[command(flatten)]
    obtain: Obtain,
    /// The image: a name, or a digest.
    image: String,
    /// The command and its arguments; by default the image's own.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// How long this process may take to end once its machine is to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the workload to its end; the code is its own, or 125 to 127 where it did not run.
pub fn run(args: Args, logging: &Logging) -> Result<ExitCode> {
    let started = now();
    // Until the instance is there, signals do what they always do: a pull can be interrupted.
    let image = info_span!("image", name = args.image)
        .in_scope(|| args.obtain.image(&Store::open_default()?, &args.image, logging))?;
    let Some(image) = image else {
        return Ok(ExitCode::from(EXIT_OWN_FAILURE));
    };
    // Before any thread exists, so that all of them inherit the mask.
    let signals = signals::block(&signals::passed_on()).context("cannot block signals")?;
    let is_virtual_machine = args.isolation.is_virtual_machine();
    let code = match run_instance(args, image, started, signals) {
        Ok(code) => code,
        Err(error) => {
            let code = error.downcast_ref().map_or(EXIT_OWN_FAILURE, IsolationError::exit_code);
            failure::tell(error.as_ref());
            code
        }
    };
    if is_virtual_machine {
        // The kernel takes tens of milliseconds to tear a VM down, which nobody has to wait for.
        teardown::exit_now(code.into());
    }
    Ok(ExitCode::from(code))
}

fn run_instance(args: Args, image: Image, started: u64, signals: signals::Blocked) -> Result<u8> {
    let instances = Instances::open_default()?;
    // What is in the way of nobody does not keep anybody from starting.
    for failure in debug_span!("sweep").in_scope(|| instances.sweep())?.failures {
        eprintln!("isolab: warning: of an instance that was killed: {}", Report::new(failure));
    }
    let stdio = match args.tty {
        true => Stdio::Terminal(terminal::size(args.interactive)?),
        false => Stdio::Inherit { stdin: args.interactive },
    };
    let mut env = args.env;
    if args.tty {
        // As podman has it; one that is asked for comes later and wins.
        env.insert(0, "TERM=xterm".to_owned());
    }
    let folder = instances.create(args.name, args.isolation)?;
    let hostname = args.hostname.filter(|name| !name.is_empty());
    let request = Request {
        command: args.command,
        env,
        workdir: args.workdir,
        user: args.user,
        hostname: hostname.unwrap_or_else(|| folder.name().to_hostname()),
        limits: Limits {
            memory_bytes: args.memory.filter(|bytes| *bytes != 0),
            cpus: args.cpus.filter(|cpus| *cpus != 0.0),
            pids: args.pids_limit.and_then(|limit| u32::try_from(limit).ok()).filter(|n| *n != 0),
        },
    };
    let spec = InstanceSpec {
        spec: request.to_spec(&image)?,
        folder,
        image,
        stdio,
        kernel: args.kernel,
        network: args.network,
    };
    let mut instance = info_span!("create", level = %args.isolation)
        .in_scope(|| level(args.isolation).create(spec))?;
    info_span!("start").in_scope(|| instance.start())?;
    let controller = instance.controller()?;
    let connected = match instance.terminal() {
        Some(theirs) => Some(Terminal::connect(theirs, args.interactive)?),
        None => None,
    };
    // A signal that finds nobody came too late.
    signals
        .on_arrival(move |signal| match signal {
            libc::SIGWINCH if args.tty => terminal::follow(controller.as_ref()),
            _ => drop(controller.signal(signal)),
        })
        .context("cannot wait for signals")?;
    let ended = info_span!("wait").in_scope(|| instance.wait());
    if let Some(connected) = connected {
        connected.finish();
    }
    if let Ok(status) = &ended
        && args.isolation.is_virtual_machine()
    {
        // Threads of the machine may sit in a write to a host that reads nothing, with a lock that is
        // needed for the way out.
        teardown::exit_within(EXIT_TIMEOUT, status.exit_code().into());
    }
    if ended.is_ok() && (args.timings.is_some() || enabled!(tracing::Level::INFO)) {
        let mut milestones = instance.milestones();
        milestones.reach(Milestone::CommandStarted, started);
        milestones.log();
        if let Some(path) = args.timings {
            milestones.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if let Err(error) = info_span!("remove").in_scope(|| instance.remove_at_exit()) {
        // The command did what it did, and its code says so.
        eprintln!("isolab: warning: {}", Report::new(error));
    }
    Ok(ended?.exit_code())
}
