//! `isolab run`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use error_reporter::Report;
use isolab_command::attached::{Attached, DetachKeys};
use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_command::logging::Logging;
use isolab_command::{failure, signals};
use isolab_images::Image;
use isolab_instances::{Catalogue, Status, serve_foreground, sweep_networks};
use isolab_isolation::timeline::{Milestone, now};
use isolab_isolation::{
    Controller, Filesystem, InstanceSpec, Instances, Stdio, housekeeping, level,
};
use isolab_vmm::teardown;
use tracing::{debug_span, enabled, info_span};

use crate::create::create;
use crate::workload::{Common, Seldom, Workload};
use crate::workload_terminal::{self, WorkloadTerminal};

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
    isolab run --isolation paravirt --memory 128M -e GREETING=hello busybox sh -c 'echo $GREETING'\n  \
    isolab run -d --name web -p 8080:80 busybox httpd -f\n  \
    isolab run --network backend,alias=db --network front --isolation fullvirt busybox ip address")]
pub struct Args {
    #[command(flatten)]
    usual: Usual,
    /// Sit at an instance that lives in a process of its own, and leave it running with these keys, such as
    /// ctrl-p,ctrl-q. It stays until `isolab rm`, with --rm until its end. Without, it goes with this command, and all
    /// keys are the workload's.
    #[arg(long, value_name = "KEYS", conflicts_with_all = ["detach", "timings"])]
    detach_keys: Option<DetachKeys>,
    #[command(flatten)]
    seldom: Seldom,
}

/// [`Args`] without the options that few command lines have, in whose place are their defaults.
#[derive(Debug, clap::Args)]
pub struct Usual {
    /// Do not wait: print the instance's id when its command runs.
    #[arg(long, short)]
    detach: bool,
    /// Write the times of the instance's milestones, in nanoseconds of CLOCK_MONOTONIC, to this
    /// file as JSON. In the foreground only.
    #[arg(long, value_name = "FILE", conflicts_with = "detach")]
    timings: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Usual {
    /// With the defaults of the other options. None where what looks like the command's name may be one of those.
    pub fn complete(self) -> Option<Args> {
        let is_option = |word: &String| word.starts_with('-');
        let is_certain = !self.common.command.first().is_some_and(is_option);
        is_certain.then(|| Args { usual: self, detach_keys: None, seldom: Seldom::default() })
    }
}

/// How long this process may take to end once its machine is to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the workload to its end; the code is its own, or 125 to 127 where it did not run.
pub fn run(args: Args, logging: &Logging) -> Result<ExitCode> {
    let started = now();
    let Args { usual: Usual { detach, timings, common }, detach_keys, seldom } = args;
    let workload = Workload { common, seldom };
    // Until the instance is there, signals do what they always do: a pull can be interrupted.
    let Some(image) = workload.image(logging)? else {
        return Ok(ExitCode::from(EXIT_OWN_FAILURE));
    };
    if detach || detach_keys.is_some() || workload.is_supervised() {
        return supervised(&workload, &image, detach, &detach_keys.unwrap_or_default());
    }
    // Before any thread exists, so that all of them inherit the mask.
    let signals = signals::block(&signals::passed_on()).context("cannot block signals")?;
    let is_virtual_machine = workload.common.isolation.is_virtual_machine();
    let code = match run_instance(&workload, image, started, timings, signals) {
        Ok(code) => code,
        Err(error) => {
            failure::tell(error.as_ref());
            failure::exit_code(&error)
        }
    };
    if is_virtual_machine {
        // The kernel takes tens of milliseconds to tear a VM down, which nobody has to wait for.
        teardown::exit_now(code.into());
    }
    Ok(ExitCode::from(code))
}

/// Runs it in a process of its own, and sits at it unless it is to be left alone.
fn supervised(
    workload: &Workload,
    image: &Image,
    detach: bool,
    keys: &DetachKeys,
) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    sweep(&catalogue.instances);
    let instance = create(&catalogue, workload, image)?;
    let started = match detach {
        true => catalogue
            .start(&instance, None, failure::describe)
            .map(|_| {
                println!("{}", instance.entry.id);
                ExitCode::SUCCESS
            })
            .map_err(anyhow::Error::from),
        false => Attached::new(&instance, workload.common.interactive, keys).and_then(|attached| {
            attached.run(|streams| catalogue.start(&instance, Some(streams), failure::describe))
        }),
    };
    started.or_else(|error| {
        failure::tell(error.as_ref());
        // What was never started is nobody's; it may have gone by itself.
        if let Ok(instance) = catalogue.find(&instance.entry.id)
            && instance.state.status == Status::Created
            && let Err(error) = catalogue.remove(&instance, true)
        {
            failure::tell(&error);
        }
        Ok(ExitCode::from(failure::exit_code(&error)))
    })
}

/// What is in the way of nobody does not keep anybody from starting.
fn sweep(instances: &Instances) {
    let swept = debug_span!("sweep").in_scope(|| instances.sweep());
    let failures = swept.map_or_else(|error| vec![error], |swept| swept.failures);
    for failure in failures {
        eprintln!("isolab: warning: of an instance that was killed: {}", Report::new(failure));
    }
    if let Err(failure) = debug_span!("sweep networks").in_scope(sweep_networks) {
        eprintln!("isolab: warning: of an instance that was killed: {}", Report::new(failure));
    }
}

/// The instance's anonymous volumes, which go with it.
struct OwnVolumes(Filesystem);

impl OwnVolumes {
    fn of(filesystem: &Filesystem, instances: &Instances) -> Self {
        // Here nobody else pays for it.
        if filesystem.has_anonymous()
            && let Err(error) = housekeeping::sweep_volumes(instances)
        {
            eprintln!("isolab: warning: of an instance that was killed: {}", Report::new(error));
        }
        Self(filesystem.clone())
    }
}

impl Drop for OwnVolumes {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove_anonymous() {
            eprintln!("isolab: warning: {}", Report::new(error));
        }
    }
}

fn run_instance(
    workload: &Workload,
    image: Image,
    started: u64,
    timings: Option<PathBuf>,
    signals: signals::Blocked,
) -> Result<u8> {
    let &Common { isolation, interactive, tty, .. } = &workload.common;
    let stdio = match tty {
        true => Stdio::Terminal(workload_terminal::size(interactive)?),
        false => Stdio::Inherit { stdin: interactive },
    };
    let instances = Instances::open_default()?;
    sweep(&instances);
    let folder = instances.create(workload.common.name.clone(), isolation)?;
    let (config, spec) = workload.config(&folder, &image)?;
    workload.write_id(folder.id())?;
    let path = folder.path().to_owned();
    let whose = (folder.name().as_str(), folder.id());
    // Dropped behind the instance: its interfaces go first.
    let (network, mut connected) = debug_span!("connect")
        .in_scope(|| config.networking.connect(isolation, whose, &config.request))?;
    let spec = InstanceSpec {
        spec,
        folder,
        image: image.clone(),
        filesystem: config.request.filesystem.clone(),
        init: config.request.security.init,
        stdio,
        kernel: config.kernel.clone(),
        patience: config.patience,
        network,
    };
    // Gone after the instance, which is dropped before it.
    let _volumes = OwnVolumes::of(&config.request.filesystem, &instances);
    let mut instance =
        info_span!("create", level = %isolation).in_scope(|| level(isolation).create(spec))?;
    connected.enter(instance.network_namespace())?;
    info_span!("start").in_scope(|| instance.start())?;
    let controller: Arc<dyn Controller> = instance.controller()?.into();
    let served = serve_foreground(
        &path,
        isolation,
        config,
        &image,
        Arc::clone(&controller),
        connected.attachments.clone(),
    );
    if let Err(error) = &served {
        // It runs all the same.
        eprintln!("isolab: warning: {}", Report::new(error));
    }
    drop(image);
    let watched = match instance.terminal() {
        Some(theirs) => Some(WorkloadTerminal::connect(theirs, interactive)?),
        None => None,
    };
    // A signal that finds nobody came too late.
    signals
        .on_arrival(move |signal| match signal {
            libc::SIGWINCH if tty => workload_terminal::follow(controller.as_ref()),
            _ => drop(controller.signal(signal)),
        })
        .context("cannot wait for signals")?;
    let ended = info_span!("wait").in_scope(|| instance.wait());
    drop(served);
    if let Some(watched) = watched {
        watched.finish();
    }
    if let Ok(status) = &ended
        && isolation.is_virtual_machine()
    {
        // Threads of the machine may sit in a write to a host that reads nothing, with a lock that is
        // needed for the way out.
        teardown::exit_within(EXIT_TIMEOUT, status.exit_code().into());
    }
    if ended.is_ok() && (timings.is_some() || enabled!(tracing::Level::INFO)) {
        let mut milestones = instance.milestones();
        milestones.reach(Milestone::CommandStarted, started);
        milestones.log();
        if let Some(path) = timings {
            milestones.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if let Ok(status) = &ended
        && status.exit_code() != 0
        && instance.has_run_out_of_memory()
    {
        eprintln!(
            "isolab: warning: its memory was used up, for which the kernel killed a process of the command"
        );
    }
    if let Err(error) = info_span!("remove").in_scope(|| instance.remove_at_exit()) {
        // The command did what it did, and its code says so.
        eprintln!("isolab: warning: {}", Report::new(error));
    }
    if !connected.attachments.is_empty()
        && let Err(error) = info_span!("disconnect").in_scope(|| connected.disconnect())
    {
        eprintln!("isolab: warning: {}", Report::new(error));
    }
    Ok(ended?.exit_code())
}
