//! The life of a supervisor: from taking the instance over to the workload's last end.

use std::error::Error;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use error_reporter::Report;
use isolab_images::{Image, Store};
use isolab_isolation::{
    Controller, InstanceFolder, InstanceName, InstanceSpec, Instances, Level, ProcessId, level,
};

use super::output::Output;
use super::record::Record;
use super::served::Served;
use super::server::{self, SOCKET};
use super::{ending, health, terminal};
use crate::config::Config;
use crate::error::InstanceError;
use crate::log::LogWriter;
use crate::protocol::{Channel, Envelope, Reply, Request, VERSION};
use crate::state::{Health, State, Status};
use crate::time::Timestamp;

/// Between the end of a workload and its next start: at first, and at most, as Docker has it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A workload that ran so long has started well, and the next pause is the first again.
const STARTED_WELL: Duration = Duration::from_secs(10);

/// How a failure is told: what the command line would print.
pub type Describe = fn(&(dyn Error + 'static)) -> String;

/// Looks after the instance until its end, and gives the exit code of this process.
pub(super) fn run(name: &str, channel: Channel, describe: Describe) -> i32 {
    // What it is called in a list of processes; a longer name is cut. No more than that depends on it.
    if let Ok(title) = CString::new(format!("isolab {name}")) {
        let _ = nix::sys::prctl::set_name(&title);
    }
    let mut starter = Some(channel);
    match supervise(name, &mut starter) {
        Ok(()) => 0,
        Err(error) => {
            let why = describe(&error);
            eprintln!("{why}");
            if let Some(channel) = starter {
                channel.reply(&Reply::Failed { code: error.exit_code(), why }, &[]);
            }
            125
        }
    }
}

/// What does not change from run to run.
struct Supervised {
    level: Level,
    config: Config,
    image: Image,
    served: Served,
    output: Output,
}

fn supervise(name: &str, starter: &mut Option<Channel>) -> Result<(), InstanceError> {
    let name: InstanceName =
        name.parse().map_err(|_| InstanceError::NoSuchInstance(name.into()))?;
    let mut folder = Instances::open_default()?.adopt(&name)?;
    let path = folder.path().to_owned();
    let config = Config::read(&path)?;
    let config = config.ok_or_else(|| InstanceError::NoSuchInstance(name.to_string()))?;
    let before = State::read(&path)?.unwrap_or_default();
    let image = Store::open_default()?.resolve(&config.image_id)?;
    // From here on it goes with us, however we end.
    if config.auto_remove {
        folder.keep(false)?;
    }
    let record = Arc::new(Record::new(
        path.clone(),
        State {
            status: before.status,
            exit_code: before.exit_code,
            supervisor: ProcessId::of(std::process::id() as i32),
            ..State::default()
        },
    ));
    ending::end_by_signals(&record, &config)?;
    let output = Output::new(LogWriter::new(&path, config.log));
    let level = folder.level();
    let served =
        Served::new(Arc::clone(&record), Some(output.clone()), level, config.clone(), &image);
    let supervised = Supervised { level, config, image, served, output };
    if let Some(channel) = starter {
        supervised.greet(channel)?;
    }
    server::serve(&path, &supervised.served)?;
    let result = supervised.live(&folder, &record, starter);
    // Where it stays, nobody listens on it.
    let _ = fs::remove_file(path.join(SOCKET));
    let code = record.state().exit_code;
    folder.remove()?;
    if supervised.config.auto_remove
        && let Err(error) = supervised.config.request.filesystem.remove_anonymous()
    {
        eprintln!(
            "cannot remove the instance's volumes: {}",
            Report::new(InstanceError::from(error))
        );
    }
    // Whoever is told of the end finds nobody there who looks after the instance.
    record.finish(code);
    supervised.output.release();
    supervised.served.settle();
    supervised.output.settle();
    result
}

impl Supervised {
    /// Hears what the starter wants besides a start: to be attached before there is any output.
    fn greet(&self, channel: &Channel) -> Result<(), InstanceError> {
        let failed = InstanceError::host::<io::Error>("talk to who starts the instance");
        let Ok(Some((Envelope { version: VERSION, request }, fds))) = channel.receive() else {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        };
        if let Request::Attach { stdin } = request {
            let channel = channel.try_clone().map_err(failed)?;
            self.served.attach(channel, stdin, fds)?;
        }
        Ok(())
    }

    /// Runs the workload, as often as its restart policy says.
    fn live(
        &self,
        folder: &InstanceFolder,
        record: &Arc<Record>,
        starter: &mut Option<Channel>,
    ) -> Result<(), InstanceError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let ended = self.run_once(folder, record, starter);
            // Nobody waits for more than the first start.
            if ended.is_err() && starter.is_some() {
                return ended.map(drop);
            }
            let state = record.state();
            let applies = self.config.restart.applies(state.exit_code, state.restarts);
            if record.is_stopped() || !applies {
                return Ok(());
            }
            if began.elapsed() >= STARTED_WELL {
                pause = FIRST_PAUSE;
            }
            record.change(|state| state.status = Status::Restarting);
            self.output.release();
            if record.wait_stopped(pause) {
                record.change(|state| state.status = Status::Exited);
                return Ok(());
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            record.change(|state| state.restarts += 1);
        }
    }

    fn run_once(
        &self,
        folder: &InstanceFolder,
        record: &Arc<Record>,
        starter: &mut Option<Channel>,
    ) -> Result<(), InstanceError> {
        let result = self.attempt(folder, record, starter);
        record.set_controller(None);
        if let Err(error) = &result {
            let why = Report::new(error).to_string();
            let console = error.console().unwrap_or_default().to_owned();
            eprintln!("{why}");
            record.change(|state| {
                // One that was never started is as it was.
                if starter.is_none() {
                    state.status = Status::Exited;
                    state.exit_code = i32::from(error.exit_code());
                    state.finished_at = Some(Timestamp::now());
                }
                state.process = None;
                state.networks.clear();
                (state.error, state.console) = (why, console);
            });
        }
        result
    }

    fn attempt(
        &self,
        folder: &InstanceFolder,
        record: &Arc<Record>,
        starter: &mut Option<Channel>,
    ) -> Result<(), InstanceError> {
        let config = &self.config;
        let (stdio, ends) = terminal::prepare(config.interactive, config.terminal)?;
        let whose = (folder.name().as_str(), folder.id());
        // Dropped behind the instance: its interfaces go first.
        let (network, mut connected) =
            config.networking.connect(self.level, whose, &config.request)?;
        let spec = InstanceSpec {
            folder: folder.share()?,
            spec: config.request.to_spec(self.level, &self.image)?,
            image: self.image.clone(),
            filesystem: config.request.filesystem.clone(),
            init: config.request.security.init,
            stdio,
            kernel: config.kernel.clone(),
            patience: config.patience,
            network,
        };
        let mut instance = level(self.level).create(spec)?;
        connected.enter(instance.network_namespace())?;
        let ends = ends.of(instance.as_mut())?;
        self.output.set_input(ends.input);
        let pumps = self.output.pump(ends.output)?;
        let controller: Arc<dyn Controller> = instance.controller()?.into();
        instance.start()?;
        instance.wait_started()?;
        record.set_controller(Some(Arc::clone(&controller)));
        record.change(|state| {
            state.status = Status::Running;
            state.started_at = Some(Timestamp::now());
            state.process = folder.process();
            state.oom_killed = false;
            (state.error, state.console) = Default::default();
            state.networks.clone_from(&connected.attachments);
            state.health = config.health.as_ref().map(|_| Health::default());
        });
        if let Some(health) = &config.health
            && let Some(process) = self.served.first_process()
        {
            health::watch(health.clone(), record, Arc::clone(&controller), &process, &self.image)?;
        }
        if let Some(channel) = starter.take() {
            // Whoever wanted it started may have gone; it is started all the same.
            channel.reply(&Reply::Started, &[]);
        }
        if record.is_stopped() {
            // Between two runs, when there was nobody to signal.
            ending::send(controller.as_ref(), libc::SIGKILL);
        }
        let ended = instance.wait();
        let oom_killed = instance.has_run_out_of_memory();
        record.set_controller(None);
        let removed = instance.remove();
        if let Err(error) = removed {
            eprintln!(
                "cannot remove what the run left: {}",
                Report::new(InstanceError::from(error))
            );
        }
        if let Err(error) = connected.disconnect() {
            eprintln!("cannot give up the run's networks: {}", Report::new(error));
        }
        let code = ended.as_ref().map_or(KILLED_BY_FAULT, |status| i32::from(status.exit_code()));
        record.change(|state| {
            state.status = Status::Exited;
            (state.process, state.exit_code, state.oom_killed) = (None, code, oom_killed);
            state.networks.clear();
            state.finished_at = Some(Timestamp::now());
        });
        self.output.finish(pumps, code);
        Ok(ended.map(drop)?)
    }
}

/// The code of a workload that was lost with its machine, as when it is ended by force.
const KILLED_BY_FAULT: i32 = 125;
