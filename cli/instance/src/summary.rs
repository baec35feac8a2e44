//! What is told of an instance, under the names that podman has for it.

use isolab_instances::time::{Timestamp, about};
use isolab_instances::{Config, Instance, Status};
use isolab_isolation::{CapabilityChoice, Device, Level, Ulimit};
use serde_json::{Value, json};

use crate::networks;

fn time(time: Option<Timestamp>) -> String {
    // What podman tells of what has not been.
    time.map_or("0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

/// The workload's first process; 0 where none runs, as podman tells it.
fn pid(instance: &Instance) -> i32 {
    let process = instance.entry.process.filter(|_| instance.state.status.is_running());
    process.unwrap_or(0)
}

/// `Up 5 minutes (healthy)`, `Exited (1) 2 hours ago`.
pub fn status(instance: &Instance) -> String {
    let state = &instance.state;
    let since = |time: Option<Timestamp>| time.map_or(String::new(), |time| about(time.age()));
    let health = state.health.as_ref().filter(|_| state.status.is_running());
    let health = health.map_or(String::new(), |it| format!(" ({})", it.status.name()));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}{health}", since(state.started_at)),
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at))
        }
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

/// As `podman ps --format json` has it.
pub fn row(instance: &Instance) -> Value {
    let (entry, state) = (&instance.entry, &instance.state);
    let config = instance.config.as_ref();
    let seconds = |time: Option<Timestamp>| time.map_or(0, Timestamp::seconds);
    let created = config.map(|config| config.created);
    json!({
        "Id": entry.id,
        "Names": [entry.name],
        "Image": config.map(|it| &it.image),
        "ImageID": config.map(|it| &it.image_id),
        "Command": config.map(|it| &it.process.args),
        "Created": seconds(created),
        "CreatedAt": time(created),
        "State": state.status.name(),
        "Status": status(instance),
        "Exited": state.status == Status::Exited,
        "ExitCode": state.exit_code,
        "StartedAt": seconds(state.started_at),
        "ExitedAt": seconds(state.finished_at),
        "Pid": pid(instance),
        "AutoRemove": config.is_some_and(|it| it.auto_remove),
        "Labels": config.map(|it| &it.labels),
        "Restarts": state.restarts,
        "Ports": networks::rows(instance),
        "Networks": state.networks.iter().map(|it| &it.network).collect::<Vec<_>>(),
        "Isolation": entry.level.name(),
    })
}

/// As `podman inspect` has it.
pub fn whole(instance: &Instance) -> Value {
    let (entry, state) = (&instance.entry, &instance.state);
    let config = instance.config.as_ref();
    let (path, args) = match config.map(|it| &it.process.args[..]) {
        Some([path, args @ ..]) => (path.clone(), args.to_vec()),
        _ => (String::new(), Vec::new()),
    };
    let health = state.health.as_ref().map(|health| {
        let log = health.log.iter().map(|check| {
            json!({
                "Start": check.start.to_string(),
                "End": check.end.to_string(),
                "ExitCode": check.exit_code,
                "Output": check.output,
            })
        });
        json!({
            "Status": health.status.name(),
            "FailingStreak": health.failing_streak,
            "Log": log.collect::<Vec<_>>(),
        })
    });
    json!({
        "Id": entry.id,
        "Created": time(config.map(|it| it.created)),
        "Path": path,
        "Args": args,
        "State": {
            "Status": state.status.name(),
            "Running": state.status.is_running(),
            "Paused": state.status == Status::Paused,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Dead": false,
            "Pid": pid(instance),
            "ConmonPid": if entry.is_owned { entry.monitor } else { 0 },
            "ExitCode": state.exit_code,
            "Error": state.error,
            "GuestConsole": state.console,
            "StartedAt": time(state.started_at),
            "FinishedAt": time(state.finished_at),
            "Health": health,
        },
        "Image": config.map(|it| &it.image_id),
        "ImageName": config.map(|it| &it.image),
        "Name": entry.name,
        "RestartCount": state.restarts,
        "Isolation": entry.level.name(),
        "ConfigPath": entry.path.join("config.json"),
        "Config": config.map(of_config),
        "HostConfig": config.map(|config| of_host_config(config, entry.level)),
        "NetworkSettings": networks::settings(instance),
    })
}

fn of_config(config: &Config) -> Value {
    let health = config.health.as_ref().map(|health| {
        json!({
            "Test": health.command,
            "Interval": health.interval.as_nanos() as u64,
            "Timeout": health.timeout.as_nanos() as u64,
            "Retries": health.retries,
            "StartPeriod": health.start_period.as_nanos() as u64,
            "StartInterval": health.start_interval.map_or(0, |it| it.as_nanos() as u64),
        })
    });
    json!({
        "Hostname": config.request.hostname,
        "User": config.process.user,
        "Tty": config.terminal,
        "OpenStdin": config.interactive,
        "Env": config.process.env,
        "Cmd": config.process.args,
        "Entrypoint": config.request.entrypoint,
        "Image": config.image,
        "WorkingDir": config.process.cwd,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
        "Umask": format!("{:04o}", config.request.security.umask.unwrap_or(0o022)),
        "Healthcheck": health,
    })
}

/// What a container's /dev/shm holds by default, in bytes.
const DEFAULT_SHM: u64 = 64 << 20;

fn names(choices: &[CapabilityChoice]) -> Vec<String> {
    choices.iter().map(CapabilityChoice::to_string).collect()
}

fn device(device: &Device) -> Value {
    json!({
        "PathOnHost": device.host,
        "PathInContainer": device.container,
        "CgroupPermissions": device.permissions,
    })
}

fn ulimit(limit: &Ulimit) -> Value {
    // No limit is -1.
    let number = |limit: u64| limit as i64;
    json!({
        "Name": limit.rlimit_name(),
        "Soft": number(limit.soft),
        "Hard": number(limit.hard),
    })
}

fn mode(is_host: bool) -> &'static str {
    if is_host { "host" } else { "private" }
}

fn of_host_config(config: &Config, level: Level) -> Value {
    let security = &config.request.security;
    let is_container = level == Level::Container;
    let limits = config.request.limits;
    json!({
        "AutoRemove": config.auto_remove,
        "Memory": limits.memory_bytes.unwrap_or(0),
        "NanoCpus": (limits.cpus.unwrap_or(0.0) * 1e9) as u64,
        "PidsLimit": limits.pids.unwrap_or(0),
        "CapAdd": names(&security.cap_add),
        "CapDrop": names(&security.cap_drop),
        "Privileged": security.privileged,
        "SecurityOpt": security.security_options(),
        "Devices": security.devices.iter().map(device).collect::<Vec<_>>(),
        "Ulimits": security.ulimits.iter().map(ulimit).collect::<Vec<_>>(),
        "Sysctls": security.sysctls,
        "ShmSize": security.shm_size.unwrap_or(if is_container { DEFAULT_SHM } else { 0 }),
        "Init": security.init,
        "UsernsMode": security.user_namespace.name(),
        "PidMode": mode(security.host_pid),
        "IpcMode": mode(security.host_ipc),
        "UTSMode": mode(security.host_uts),
        "GroupAdd": security.groups,
        "OomScoreAdj": security.oom_score_adj.unwrap_or(0),
        "NetworkMode": config.networking.mode(level),
        "PortBindings": networks::bindings(config.networking.ports.iter()),
        "RestartPolicy": {
            "Name": config.restart.name(),
            "MaximumRetryCount": config.restart.retries(),
        },
        "LogConfig": {
            "Type": "k8s-file",
            "Config": {
                "max-size": config.log.max_size.to_string(),
                "max-file": config.log.max_file.to_string(),
            },
        },
    })
}
