//! What is done to instances: made, started, stopped, removed, and looked into meanwhile.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use std::{fs, thread};

use isolab_isolation::{
    FileRequest, FurtherProcess, InstanceFolder, InstanceName, Level, ProcessEntry, ProcessId,
    Stats, WindowSize,
};

use crate::catalogue::{Catalogue, Instance, is_in_use, sweep_after_others};
use crate::client::{Connection, Session, Streams};
use crate::config::Config;
use crate::document::Durability;
use crate::error::InstanceError;
use crate::protocol::{Channel, Request};
use crate::state::State;
use crate::supervisor::{Describe, spawn};

/// How long whoever looks after what a killed supervisor left may take.
const GUARDIAN_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Catalogue {
    /// Makes the folder of a new instance; `make` says what is asked for, given the instance's name and
    /// id. Nothing runs yet.
    ///
    /// # Errors
    /// The name is taken, or `make` fails: then nothing is left.
    pub fn create<E: From<InstanceError>>(
        &self,
        name: Option<InstanceName>,
        level: Level,
        make: impl FnOnce(&InstanceFolder) -> Result<Config, E>,
    ) -> Result<Instance, E> {
        let folder = self.instances.create(name, level);
        let mut folder = folder.map_err(|error| E::from(error.into()))?;
        let config = make(&folder)?;
        let (path, state) = (folder.path().to_owned(), State::default());
        config.write(&path, Durability::UntilCrash)?;
        state.write(&path)?;
        // From here on it stays.
        folder.keep(true).map_err(|error| E::from(error.into()))?;
        let id = folder.id().to_owned();
        drop(folder);
        Ok(self.find(&id)?)
    }

    /// Starts an instance that does not run, and returns when its workload does. With `streams` they are
    /// attached from the first byte on.
    ///
    /// # Errors
    /// It runs already, or could not be started, with the exit code that says why.
    ///
    /// # Panics
    /// As [`spawn`]: this process must have no other threads.
    pub fn start(
        &self,
        instance: &Instance,
        streams: Option<&Streams>,
        describe: Describe,
    ) -> Result<Session, InstanceError> {
        self.spawn(instance, streams, describe)?.started()
    }

    /// Begins to start an instance that does not run, so that several can be started at once.
    ///
    /// # Errors
    /// It runs already, or the host refused a process.
    ///
    /// # Panics
    /// As [`spawn`]: this process must have no other threads.
    pub fn begin_start(
        &self,
        instance: &Instance,
        describe: Describe,
    ) -> Result<Starting, InstanceError> {
        self.spawn(instance, None, describe).map(Starting)
    }

    fn spawn(
        &self,
        instance: &Instance,
        streams: Option<&Streams>,
        describe: Describe,
    ) -> Result<Connection, InstanceError> {
        if instance.entry.is_owned && instance.state.status.is_active() {
            return Err(instance.wrong_state("start it"));
        }
        let (ours, theirs) =
            Channel::pair().map_err(InstanceError::host("make a pair of sockets"))?;
        let connection = Connection::over(ours, instance.name())?;
        // Sent before anybody is there to read it: no byte of output is missed.
        match streams {
            Some(streams) => connection.ask_attach(streams)?,
            None => connection.ask(Request::Start, &[])?,
        }
        spawn(&instance.entry.path, instance.name(), theirs, describe)?;
        Ok(connection)
    }

    /// Whoever looks after the instance.
    fn connect(
        &self,
        instance: &Instance,
        action: &'static str,
    ) -> Result<Connection, InstanceError> {
        let found = match instance.entry.is_owned {
            true => Connection::open(&instance.entry.path, instance.name())?,
            false => None,
        };
        found.ok_or_else(|| instance.wrong_state(action))
    }

    /// Sends a signal to the workload.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, instance: &Instance, signal: i32) -> Result<(), InstanceError> {
        self.connect(instance, "send it a signal")?.signal(signal)
    }

    /// Ends the workload by its stop signal, or by SIGKILL after `timeout` seconds, and returns when it
    /// is gone. One that does not run is left alone.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self, instance: &Instance, timeout: Option<u64>) -> Result<(), InstanceError> {
        let config = instance.config.as_ref();
        let signal = config.map_or(libc::SIGTERM, |config| config.stop_signal);
        let timeout = timeout.or(config.map(|config| config.stop_timeout)).unwrap_or(10);
        let deadline = Instant::now() + GUARDIAN_TIMEOUT;
        while self.is_owned(instance)? && Instant::now() < deadline {
            // A supervisor that has just begun has no socket yet, and one that was killed has none any more.
            let Some(connection) = Connection::open(&instance.entry.path, instance.name())? else {
                thread::sleep(LOOK_AGAIN);
                continue;
            };
            match connection.stop(signal, timeout) {
                Ok(_) | Err(InstanceError::SupervisorKilled(_)) => break,
                Err(error) => return Err(error),
            }
        }
        self.wait_abandoned(instance)
    }

    fn is_owned(&self, instance: &Instance) -> Result<bool, InstanceError> {
        let entries = self.instances.list()?;
        Ok(entries.iter().any(|entry| entry.id == instance.entry.id && entry.is_owned))
    }

    /// Waits until nobody looks after the instance. What a killed supervisor left ends, or is ended,
    /// soon.
    fn wait_abandoned(&self, instance: &Instance) -> Result<(), InstanceError> {
        let deadline = Instant::now() + GUARDIAN_TIMEOUT;
        loop {
            let entries = self.instances.list()?;
            let entry = entries.into_iter().find(|entry| entry.id == instance.entry.id);
            let Some(entry) = entry.filter(|entry| entry.is_owned) else { return Ok(()) };
            let has_monitor = ProcessId::of(entry.monitor as i32).is_some();
            if Instant::now() > deadline {
                let error = instance.wrong_state("end what its supervisor has left of it");
                return Err(if has_monitor { InstanceError::Silent(entry.name) } else { error });
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Makes everything in the instance stand still.
    ///
    /// # Errors
    /// It does not run, or its level cannot do that.
    pub fn pause(&self, instance: &Instance) -> Result<(), InstanceError> {
        self.connect(instance, "pause it")?.pause()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// As [`Catalogue::pause`].
    pub fn unpause(&self, instance: &Instance) -> Result<(), InstanceError> {
        self.connect(instance, "let it go on")?.unpause()
    }

    /// What it has used.
    ///
    /// # Errors
    /// As [`Catalogue::pause`].
    pub fn stats(&self, instance: &Instance) -> Result<Stats, InstanceError> {
        self.connect(instance, "tell what it uses")?.stats()
    }

    /// The processes in it.
    ///
    /// # Errors
    /// As [`Catalogue::pause`].
    pub fn processes(&self, instance: &Instance) -> Result<Vec<ProcessEntry>, InstanceError> {
        self.connect(instance, "list its processes")?.processes()
    }

    /// Starts a further process in it, with these streams or a terminal of this size.
    ///
    /// # Errors
    /// As [`Catalogue::pause`], or the process cannot be started.
    pub fn exec(
        &self,
        instance: &Instance,
        process: FurtherProcess,
        terminal: Option<WindowSize>,
        streams: &Streams,
    ) -> Result<Session, InstanceError> {
        self.connect(instance, "start a process in it")?.exec(process, terminal, streams)
    }

    /// Has something done with the files of a guest, with these streams, as [`FileRequest`] says.
    ///
    /// # Errors
    /// As [`Catalogue::pause`], or the level has its files on the host.
    pub fn files(
        &self,
        instance: &Instance,
        request: FileRequest,
        streams: &Streams,
    ) -> Result<Session, InstanceError> {
        self.connect(instance, "copy its files")?.files(request, streams)
    }

    /// Attaches these streams to the workload's.
    ///
    /// # Errors
    /// It does not run.
    pub fn attach(&self, instance: &Instance, streams: &Streams) -> Result<Session, InstanceError> {
        self.connect(instance, "attach to it")?.attach(streams)
    }

    /// Waits until the instance has ended, and gives its exit code.
    ///
    /// # Errors
    /// It was never started.
    pub fn wait(&self, instance: &Instance) -> Result<i32, InstanceError> {
        if instance.entry.is_owned
            && let Some(connection) = Connection::open(&instance.entry.path, instance.name())?
        {
            match connection.wait() {
                Err(InstanceError::SupervisorKilled(_)) => self.wait_abandoned(instance)?,
                other => return other,
            }
        }
        // It had ended, or its end is to be found out.
        match self.find(&instance.entry.id) {
            Ok(instance) => Ok(instance.state.exit_code),
            Err(InstanceError::NoSuchInstance(_)) => Ok(crate::state::KILLED),
            Err(error) => Err(error),
        }
    }

    /// Removes an instance that does not run; with `force` one that does is killed first.
    ///
    /// # Errors
    /// It runs, or cannot be removed.
    pub fn remove(&self, instance: &Instance, force: bool) -> Result<(), InstanceError> {
        if instance.entry.is_owned {
            if !force && instance.state.status.is_active() {
                return Err(instance.wrong_state("remove it; stop it first, or force it"));
            }
            self.stop(instance, Some(0))?;
        }
        sweep_after_others();
        let name = instance.name().parse::<InstanceName>();
        let name = name.map_err(|_| InstanceError::NoSuchInstance(instance.name().to_owned()))?;
        match self.instances.adopt(&name) {
            Ok(mut folder) if folder.id() == instance.entry.id => {
                folder.keep(false)?;
                Ok(folder.remove()?)
            }
            // It removed itself, and the name may be another's already.
            Ok(_) | Err(isolab_isolation::IsolationError::NoSuchInstance { .. }) => Ok(()),
            Err(error) if is_in_use(&error) => Err(instance.wrong_state("remove it")),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives an instance that does not run another name.
    ///
    /// # Errors
    /// It runs, or the name is taken.
    pub fn rename(&self, instance: &Instance, name: &InstanceName) -> Result<(), InstanceError> {
        if instance.entry.is_owned {
            return Err(instance.wrong_state("rename it"));
        }
        let old = instance.name().parse::<InstanceName>();
        let old = old.map_err(|_| InstanceError::NoSuchInstance(instance.name().to_owned()))?;
        let folder = self.instances.adopt(&old)?;
        self.instances.rename(folder, name).map(drop)?;
        Ok(())
    }
}

/// An instance that is being started.
#[derive(Debug)]
pub struct Starting(Connection);

impl Starting {
    /// Waits until its workload runs. [`Starting::as_fd`] can be read when that is so, or can no more be.
    ///
    /// # Errors
    /// It could not be started, with the exit code that says why.
    pub fn finish(self) -> Result<(), InstanceError> {
        self.0.started().map(drop)
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Instance {
    /// Where its log is.
    pub fn log_path(&self) -> std::path::PathBuf {
        crate::log::path(&self.entry.path)
    }

    /// Whether nothing more will be written to its log: nobody looks after it any more.
    pub fn has_ended(&self) -> bool {
        let state = State::read(&self.entry.path).ok().flatten();
        let is_over = state.as_ref().is_none_or(|state| !state.status.is_active());
        is_over
            || !fs::exists(&self.entry.path).unwrap_or(false)
            || state.and_then(|state| state.supervisor).is_none_or(|it| !it.lives())
    }
}
