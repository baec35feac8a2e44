//! The hooks of a configuration (config.md, "POSIX-platform Hooks"): programs of the host's or the container's, told
//! the container's state on standard input, each at its moment (runtime.md, "Lifecycle").
//!
//! | | when | where its path is found | where it runs |
//! |---|---|---|---|
//! | prestart, createRuntime | everything is mounted, the root not yet entered | host | host |
//! | createContainer | right after | host | container's namespaces, the host's root |
//! | startContainer | before the program | container | container, as its process is |
//! | poststart | when the program runs | host | host |
//! | poststop | when the container is removed | host | host |

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::PollTimeout;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use oci_spec::runtime::{ContainerState, Hook, Hooks, Process, State};

use crate::child::ExitStatus;
use crate::config::{Stdio, Stream};
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::pidfd;
use crate::process::exec::ExecPlan;
use crate::process::plan::ProcessPlan;
use crate::processes;

/// How much of what a hook said goes into an error.
const SAID: u64 = 2048;

/// Hooks of one kind, by its field.
type Kind<'a> = (&'static str, &'a Option<Vec<Hook>>);

/// Refuses what cannot be run, before anything is made.
pub(crate) fn check(hooks: &Hooks) -> Result<()> {
    for (field, hooks) in kinds(hooks) {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            let invalid = |field: &str, problem: String| {
                Err(Error::invalid(format!("{field}[{index}]"), problem))
            };
            if !hook.path().is_absolute() {
                return invalid(field, format!("path {} is not absolute", hook.path().display()));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return invalid(field, "timeout: at least 1 second".to_owned());
            }
            ExecPlan::at(hook.path(), arguments(hook), hook.env().as_deref().unwrap_or_default())?;
        }
    }
    Ok(())
}

#[allow(
    deprecated,
    reason = "prestart is deprecated, and to be supported all the same (config.md)"
)]
fn kinds(hooks: &Hooks) -> [Kind<'_>; 6] {
    [
        ("hooks.prestart", hooks.prestart()),
        ("hooks.createRuntime", hooks.create_runtime()),
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
        ("hooks.poststart", hooks.poststart()),
        ("hooks.poststop", hooks.poststop()),
    ]
}

/// Whether anything is to be done while the container is made.
pub(crate) fn any_at_creation(hooks: &Hooks) -> bool {
    kinds(hooks)[..3].iter().any(|(_, hooks)| hooks.as_ref().is_some_and(|all| !all.is_empty()))
}

/// prestart, createRuntime and createContainer. `handle`: of the process that waits meanwhile.
pub(crate) fn at_creation(hooks: &Hooks, handle: &Handle, state: &State) -> Result<()> {
    let [prestart, runtime, container, ..] = kinds(hooks);
    run_all(prestart, state, run_outside)?;
    run_all(runtime, state, run_outside)?;
    run_all(container, &seen_inside(state), |hook, place, state| {
        run_inside(hook, place, state, handle, None)
    })
}

/// startContainer, which run as `process`, the container's own, does.
///
/// # Errors
/// The first hook that failed; the container is to be killed then, and removed.
pub fn before_start(
    hooks: &Hooks,
    process: &Process,
    handle: &Handle,
    state: &State,
) -> Result<()> {
    let [_, _, _, kind, ..] = kinds(hooks);
    let state = with_status(state, ContainerState::Created);
    run_all(kind, &seen_inside(&state), |hook, place, state| {
        run_inside(hook, place, state, handle, Some(process))
    })
}

/// poststart.
///
/// # Errors
/// As [`before_start`].
pub fn after_start(hooks: &Hooks, state: &State) -> Result<()> {
    let [_, _, _, _, kind, _] = kinds(hooks);
    run_all(kind, &with_status(state, ContainerState::Running), run_outside)
}

/// poststop: all of them, whether the others fail or not. What failed is to be told as a warning.
pub fn after_removal(hooks: &Hooks, state: &State) -> Vec<Error> {
    let [.., (field, hooks)] = kinds(hooks);
    let mut state = with_status(state, ContainerState::Stopped);
    state.set_pid(None);
    let run = |(index, hook)| run_outside(hook, &place(field, index, hook), &state).err();
    hooks.iter().flatten().enumerate().filter_map(run).collect()
}

fn with_status(state: &State, status: ContainerState) -> State {
    let mut state = state.clone();
    state.set_status(status);
    state
}

/// "For hooks executed in the container namespace, it is the pid as seen by the container" (config.md).
fn seen_inside(state: &State) -> State {
    let mut state = state.clone();
    let look = |pid: i32| processes::look(Pid::from_raw(pid)).map(|process| process.pid);
    state.set_pid((*state.pid()).map(|pid| look(pid).unwrap_or(pid)));
    state
}

/// In their order, until one fails.
fn run_all(
    (field, hooks): Kind,
    state: &State,
    run: impl Fn(&Hook, &Place, &State) -> Result<()>,
) -> Result<()> {
    let mut all = hooks.iter().flatten().enumerate();
    all.try_for_each(|(index, hook)| run(hook, &place(field, index, hook), state))
}

/// A hook, for an error: its field and its path.
struct Place(String);

fn place(field: &str, index: usize, hook: &Hook) -> Place {
    Place(format!("{field}[{index}] ({})", hook.path().display()))
}

impl Place {
    fn failed(&self, state: &State, problem: String, said: File) -> Error {
        let mut text = String::new();
        let said = read_tail(said, &mut text).map(|()| text.trim()).unwrap_or_default();
        let clean: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let problem = if clean.is_empty() { problem } else { format!("{problem}: {clean}") };
        Error::Hook { id: state.id().clone(), hook: self.0.clone(), problem }
    }

    fn host(&self, attempt: &str, source: impl Into<std::io::Error>) -> Error {
        Error::host(format!("{attempt} hook {}", self.0), source)
    }
}

fn read_tail(mut file: File, text: &mut String) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    file.seek(std::io::SeekFrom::Start(length.saturating_sub(SAID)))?;
    let mut bytes = Vec::new();
    file.take(SAID).read_to_end(&mut bytes)?;
    text.push_str(&String::from_utf8_lossy(&bytes));
    Ok(())
}

/// `args` begins with the program's name, as execv(3)'s does; by default its path.
fn arguments(hook: &Hook) -> Vec<String> {
    match hook.args() {
        Some(args) if !args.is_empty() => args.clone(),
        _ => vec![hook.path().to_string_lossy().into_owned()],
    }
}

fn run_outside(hook: &Hook, place: &Place, state: &State) -> Result<()> {
    let (input, output) = streams(place, state)?;
    let arguments = arguments(hook);
    let both = || output.try_clone().map_err(|source| place.host("run", source));
    let mut command = Command::new(hook.path());
    command.arg0(OsStr::new(arguments.first().map_or("", String::as_str)));
    command.args(arguments.iter().skip(1)).env_clear();
    let variables = hook.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    command.envs(variables).stdin(input).stdout(both()?).stderr(both()?);
    let mut child = command.spawn().map_err(|source| place.host("run", source))?;
    let process = i32::try_from(child.id()).map_err(|_| place.host("wait for", Errno::ESRCH))?;
    let ended = pidfd::open(Pid::from_raw(process))
        .and_then(|process| pidfd::wait(process, limit(hook)))
        .map_err(|errno| place.host("wait for", errno));
    if !matches!(ended, Ok(true)) {
        // It is ours and not waited for: it can be killed, and ends by that.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|source| place.host("wait for", source))?;
    match ended? {
        true if status.success() => Ok(()),
        true => Err(place.failed(state, format!("failed ({status})"), output)),
        false => Err(place.failed(state, too_long(hook), output)),
    }
}

/// `process`: as which it runs; none: as the runtime, with the host's root, where the container's is not entered yet.
fn run_inside(
    hook: &Hook,
    place: &Place,
    state: &State,
    handle: &Handle,
    process: Option<&Process>,
) -> Result<()> {
    let (input, output) = streams(place, state)?;
    let both = || output.try_clone().map(|file| Stream::Descriptor(file.into()));
    let streams = both().and_then(|stdout| Ok((stdout, both()?)));
    let (stdout, stderr) = streams.map_err(|source| place.host("run", source))?;
    let stdio = Stdio { stdin: Stream::Descriptor(input), stdout, stderr, further: 0 };
    let confined = process.is_some();
    let mut process = process.cloned().unwrap_or_default();
    process.set_cwd("/".into()).set_terminal(Some(false)).set_args(Some(arguments(hook)));
    if !confined {
        process.set_capabilities(None).set_rlimits(None).set_no_new_privileges(Some(false));
    }
    let mut plan: ProcessPlan = handle.plan(&process, confined)?;
    let env = hook.env().as_deref().unwrap_or_default();
    plan.exec = ExecPlan::at(hook.path(), arguments(hook), env)?;
    let executed = handle.join(plan, stdio)?;
    let ended =
        executed.ended_within(limit(hook)).map_err(|errno| place.host("wait for", errno))?;
    if !ended {
        // Dropped, it is killed.
        drop(executed);
        return Err(place.failed(state, too_long(hook), output));
    }
    match executed.wait() {
        Ok(ExitStatus::Exited(0)) => Ok(()),
        Ok(status) => Err(place.failed(state, format!("failed ({status})"), output)),
        Err(_) => Err(place.host("wait for", Errno::ECHILD)),
    }
}

fn limit(hook: &Hook) -> PollTimeout {
    let milliseconds = hook.timeout().map(|seconds| seconds.saturating_mul(1000));
    // Longer than the kernel can be told to wait is for ever, as none is.
    let limit = milliseconds.and_then(|limit| PollTimeout::try_from(limit).ok());
    limit.unwrap_or(PollTimeout::NONE)
}

fn too_long(hook: &Hook) -> String {
    format!("did not end within {} s (its timeout)", hook.timeout().unwrap_or_default())
}

/// Memory files, which no hook waits for and none has to read: the state, and what it says.
fn streams(place: &Place, state: &State) -> Result<(OwnedFd, File)> {
    let made = || -> std::io::Result<(OwnedFd, File)> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut input = File::from(memfd_create(c"state", flags)?);
        input.write_all(&serde_json::to_vec(state)?)?;
        input.rewind()?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
        fcntl(&input, FcntlArg::F_ADD_SEALS(seals))?;
        let output = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
        Ok((input.into(), output))
    };
    made().map_err(|source| place.host("tell the state to", source))
}
