//! RUN.

use parse_dockerfile::{Command, RunInstruction};
use serde_json::json;

use super::{Outcome, PROXY_ARGS, StageBuilder};
use crate::build::copy::{Ownership, Plan};
use crate::build::merged::Merged;
use crate::build::{BuildStep, words};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl StageBuilder<'_, '_, '_> {
    pub(super) fn run(&mut self, run: &RunInstruction<'_>, text: &str) -> Outcome {
        if let Some(option) = run.options.first() {
            let name = option.name.value.as_ref();
            let value = option.value.as_ref().map_or("", |value| value.value.as_ref());
            // What steps have anyway.
            let is_usual =
                (name, value) == ("network", "default") || (name, value) == ("security", "sandbox");
            if !is_usual || run.options.len() > 1 {
                return Err(format!("RUN --{name} is not supported").into());
            }
        }
        let args = self.run_command(run)?;
        let mut env = self.stage.config.list("Env");
        let has = |env: &[String], name: &str| {
            env.iter().any(|other| other.split('=').next() == Some(name))
        };
        for (name, value) in &self.args {
            if let (Some(value), false) = (value, has(&env, name)) {
                env.push(format!("{name}={value}"));
            }
        }
        let proxies: Vec<String> = PROXY_ARGS
            .iter()
            .filter_map(|name| Some(format!("{name}={}", self.build.request.args.get(*name)?)))
            .collect();
        if !has(&env, "PATH") {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let cwd = match self.stage.config.text("WorkingDir") {
            "" => "/".to_owned(),
            dir => dir.to_owned(),
        };
        let user = self.stage.config.text("User").to_owned();
        // Without the proxies: which way a file came does not make it another.
        let inputs = json!({"args": args, "env": env, "cwd": cwd, "user": user});
        let key = self.key("run", inputs.to_string().as_bytes());
        if let Some(step) = self.cached(&key) {
            return self.take(step, text);
        }
        env.extend(proxies);
        let mut lower = self.folders()?;
        if lower.is_empty() {
            lower.push(self.folder("empty")?);
        }
        let (upper, work) = (self.folder("upper")?, self.folder("work")?);
        // overlayfs shows the upper folder's owner and mode as the root's.
        let root = Merged::new(lower.clone());
        Plan::new(Ownership::default(), true).write(&upper, &root)?;
        let host_network = self.build.request.host_network;
        let step = BuildStep { lower, upper, work, args, env, cwd, user, host_network };
        match self.build.runner.run(&step)? {
            0 => self.finish(&key, &step.upper, text),
            code => Err(format!("the command ended with exit code {code}").into()),
        }
    }

    fn run_command(&self, run: &RunInstruction<'_>) -> Outcome<Vec<String>> {
        let Command::Shell(text) = &run.arguments else { return Ok(self.command(&run.arguments)) };
        let line = words::join_lines(text.value, self.escape);
        let words = words::split(&line, self.escape);
        let script = match &run.here_docs[..] {
            [] if !words.iter().any(|word| begins_here_document(word)) => line,
            [only] if only.value.starts_with("#!") => {
                let mend = "COPY it and RUN the file";
                return Err(format!(
                    "a here-document with an interpreter of its own is not \
                                    supported; {mend}"
                )
                .into());
            }
            // The document is the script.
            [only] if words.is_empty() => only.value.to_string(),
            // The parser knows documents at the beginning only, and of several the first.
            _ => {
                let mend = "COPY <<END FILE makes a file of one, for the command to read";
                return Err(
                    format!("a here-document beside a command is not supported; {mend}").into()
                );
            }
        };
        let mut command = self.shell();
        command.push(script);
        Ok(command)
    }
}

/// As BuildKit tells them from what else a shell knows: `<<END`, `2<<-END`, but not `<<<word`.
fn begins_here_document(word: &str) -> bool {
    let operator = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let end = operator.strip_prefix("<<").map(|end| end.strip_prefix('-').unwrap_or(end));
    end.is_some_and(|end| !end.is_empty() && !end.contains('<'))
}
