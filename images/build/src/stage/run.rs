//! RUN.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use isolab_images::ingest::io_error;
use isolab_images::{BuildStep, Merged, Mounted, StepMount};
use serde_json::json;

use super::mount_points::MountPoints;
use super::mounts::Planned;
use super::{Outcome, PROXY_ARGS, StageBuilder};
use crate::copy::{CopyPlan, Ownership};
use crate::dockerfile::{Instruction, here};
use crate::{BuildNeed, check_of};

/// Where a script with an interpreter of its own is found, as BuildKit has it.
const SCRIPTS: &str = "/dev/pipes";

/// A command, with the script that it is where it is one.
struct Command {
    args: Vec<String>,
    script: Option<String>,
}

impl StageBuilder<'_, '_> {
    pub(super) fn run(&mut self, it: &Instruction) -> Outcome {
        let text = &it.text;
        let mut host_network = self.build.request.host_network;
        let mut options = Vec::new();
        for option in &it.options {
            let value = option.value.as_deref().unwrap_or_default();
            match (option.name.as_str(), value) {
                ("mount", value) => options.push(value),
                ("network", "none") => host_network = false,
                ("network", "host") if !host_network => {
                    return Err(BuildNeed::HostNetwork.into());
                }
                // What steps have anyway.
                ("network", "default" | "host") | ("security", "sandbox") => {}
                (name, "") => return Err(format!("RUN --{name} is not supported").into()),
                (name, value) => {
                    return Err(format!("RUN --{name}={value} is not supported").into());
                }
            }
        }
        let planned = self.plan_mounts(&options)?;
        let Command { args, script } = self.run_command(it);
        let mut env = self.environment();
        let cwd = self.working_dir();
        let user = self.stage.config.text("User").to_owned();
        let mounts: Vec<_> = planned.iter().map(Planned::describe).collect();
        // Without the proxies and secrets: which way a file came does not make it another.
        let inputs = json!({
            "args": args, "script": script, "env": env, "cwd": cwd, "user": user,
            "host_network": host_network, "mounts": mounts,
        });
        let key = self.key("run", inputs.to_string().as_bytes());
        if let Some(step) = self.cached(&key) {
            return self.take(step, text);
        }
        let mut mounted = self.mount(planned)?;
        env.append(&mut mounted.env);
        env.extend(self.proxies());
        if let Some(script) = script {
            let target = args.first().cloned().unwrap_or_default();
            mounted.mounts.push(self.script_mount(target, &script)?);
        }
        let mut lower = self.folders()?;
        if lower.is_empty() {
            lower.push(self.folder("empty")?);
        }
        let (upper, work) = (self.folder("upper")?, self.folder("work")?);
        // overlayfs shows the upper folder's owner and mode as the root's.
        let root = Merged::new(lower.clone());
        let check = check_of(self.build.runner);
        CopyPlan::new(Ownership::default(), true).write(&upper, &root, &check)?;
        let points = MountPoints::missing(&root, &mounted.mounts)?;
        let mounts = mounted.mounts.clone();
        let step = BuildStep { lower, upper, work, args, env, cwd, user, host_network, mounts };
        let ended = self.build.runner.run(&step);
        // Secrets and locks go with what was mounted, whatever became of the command.
        drop(mounted);
        self.check()?;
        match ended? {
            0 => {}
            code => return Err(format!("the command ended with exit code {code}").into()),
        }
        points.remove_from(&step.upper)?;
        self.finish(&key, &step.upper, text)
    }

    /// What is set for commands: ENV, and ARGs that it does not have.
    fn environment(&self) -> Vec<String> {
        let mut env = self.stage.config.list("Env");
        let has = |env: &[String], name: &str| {
            env.iter().any(|other| other.split('=').next() == Some(name))
        };
        for (name, value) in &self.stage.args {
            if let (Some(value), false) = (value, has(&env, name)) {
                env.push(format!("{name}={value}"));
            }
        }
        env
    }

    fn proxies(&self) -> Vec<String> {
        let given = &self.build.request.args;
        let set = PROXY_ARGS.iter().filter_map(|name| Some((name, given.get(*name)?)));
        set.map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub(super) fn working_dir(&self) -> String {
        match self.stage.config.text("WorkingDir") {
            "" => "/".to_owned(),
            dir => dir.to_owned(),
        }
    }

    /// As BuildKit: a document alone is the script, of its own interpreter where it names one;
    /// documents beside a command are the shell's to read.
    fn run_command(&self, it: &Instruction) -> Command {
        let in_shell = |script: String| {
            let mut args = self.shell();
            args.push(script);
            Command { args, script: None }
        };
        match &it.documents[..] {
            [] => Command { args: self.command(&it.arguments), script: None },
            [only] if here::beginning(&it.arguments).is_some() => {
                let content = only.content();
                if !content.starts_with("#!") {
                    return in_shell(content);
                }
                let name = if only.name().contains('/') { "script" } else { only.name() };
                Command { args: vec![format!("{SCRIPTS}/{name}")], script: Some(content) }
            }
            _ => in_shell(format!("{}{}\n", it.arguments, it.documents_as_written())),
        }
    }

    /// A script as an executable file that only this command sees.
    fn script_mount(&mut self, target: String, script: &str) -> Outcome<StepMount> {
        let source = self.place("script");
        fs::write(&source, script).map_err(io_error("write", &source))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&source, mode).map_err(io_error("write", &source))?;
        Ok(StepMount { target, what: Mounted::Path { source, read_only: true } })
    }
}
