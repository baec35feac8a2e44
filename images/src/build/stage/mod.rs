//! One stage of a Dockerfile: a base image, and instructions that change it.

mod files;
mod layers;
mod run;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat};
use nix::sys::stat::Mode;
use oci_spec::image::Descriptor;
use parse_dockerfile::{Command, FromInstruction, Instruction};
use serde_json::json;

use super::config::Config;
use super::{Build, words};
use crate::blob::BlobId;
use crate::error::{ImageError, io_error};
use crate::unpack;

/// What a stage has become.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) config: Config,
    /// The lowest first.
    pub(super) layers: Vec<Layer>,
}

#[derive(Clone)]
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    diff_id: String,
}

/// In every stage, as Docker has them.
const PLATFORM_ARGS: [(&str, &str); 6] = [
    ("TARGETPLATFORM", "linux/amd64"),
    ("TARGETOS", "linux"),
    ("TARGETARCH", "amd64"),
    ("BUILDPLATFORM", "linux/amd64"),
    ("BUILDOS", "linux"),
    ("BUILDARCH", "amd64"),
];

/// May be given and used without an ARG, and are not kept in the image (Dockerfile reference,
/// "Predefined ARGs").
const PROXY_ARGS: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// A stage that is being built.
pub(super) struct StageBuilder<'a, 'b, 'd> {
    build: &'a mut Build<'b, 'd>,
    number: usize,
    stage: Stage,
    /// ARGs that were declared so far, with their values where they have one.
    args: BTreeMap<String, Option<String>>,
    escape: char,
    /// Whether this stage has a CMD of its own: ENTRYPOINT takes away the base's.
    has_cmd: bool,
    created: String,
}

/// What failed, without the place, which the caller knows.
type Outcome<T = ()> = Result<T, Fault>;

enum Fault {
    /// Of this instruction.
    Why(String),
    /// An error that tells everything itself.
    Image(ImageError),
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Why(error.to_string())
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl From<&str> for Fault {
    fn from(why: &str) -> Self {
        Self::Why(why.to_owned())
    }
}

impl<'a, 'b, 'd> StageBuilder<'a, 'b, 'd> {
    /// Builds the stage with this number.
    pub(super) fn build(build: &'a mut Build<'b, 'd>, number: usize) -> Result<Stage, ImageError> {
        let dockerfile = build.dockerfile;
        let escape = dockerfile.parser_directives.escape.as_ref().map_or('\\', |e| e.value.value);
        let created = rfc3339(build.request.epoch);
        let stage = Stage { config: Config::empty(), layers: Vec::new() };
        let args = BTreeMap::new();
        let mut builder = Self { build, number, stage, args, escape, has_cmd: false, created };
        let mut index = 0;
        let mut seen = 0;
        for (position, instruction) in dockerfile.instructions.iter().enumerate() {
            if matches!(instruction, Instruction::From(_)) {
                if seen == number {
                    index = position;
                }
                seen += 1;
            }
        }
        let from = &dockerfile.instructions[index];
        builder.guard(from, |builder, from| match from {
            Instruction::From(from) => builder.from(from),
            _ => Err("a stage begins with FROM".into()),
        })?;
        let own = dockerfile.instructions[index + 1..]
            .iter()
            .take_while(|instruction| !matches!(instruction, Instruction::From(_)));
        for instruction in own {
            let text = builder.text_of(instruction);
            (builder.build.log)(&format!("[stage {number}] {text}"));
            builder.guard(instruction, |builder, it| builder.execute(it, &text))?;
        }
        Ok(builder.stage)
    }

    fn guard(
        &mut self,
        instruction: &Instruction<'_>,
        act: impl FnOnce(&mut Self, &Instruction<'_>) -> Outcome,
    ) -> Result<(), ImageError> {
        act(self, instruction).map_err(|fault| match fault {
            Fault::Image(error) => error,
            Fault::Why(why) => self.build.failed(instruction, why),
        })
    }

    /// The instruction on one line, as the history shows it.
    fn text_of(&self, instruction: &Instruction<'_>) -> String {
        let text = &self.build.text[start_of(instruction).min(self.build.text.len())..];
        let joined = words::join_lines(text, self.escape);
        joined.lines().next().unwrap_or_default().trim_end().to_owned()
    }

    fn from(&mut self, from: &FromInstruction<'_>) -> Outcome {
        // ARGs before the first FROM are for FROMs only.
        let mut global: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (name, value) in PLATFORM_ARGS {
            global.insert(name.to_owned(), Some(value.to_owned()));
        }
        std::mem::swap(&mut self.args, &mut global);
        let dockerfile = self.build.dockerfile;
        for arg in dockerfile.global_args() {
            self.declare(&arg.arguments.value)?;
        }
        for option in &from.options {
            let value = option.value.as_ref().map(|value| self.expand(&value.value)).transpose()?;
            match (option.name.value.as_ref(), value.as_deref()) {
                ("platform", Some("linux/amd64" | "linux/amd64/v1" | "linux/x86_64")) => {}
                ("platform", Some(other)) => {
                    return Err(format!("images for {other} cannot be built here").into());
                }
                (other, _) => return Err(format!("unknown option --{other}").into()),
            }
        }
        let image = self.expand(&from.image.value)?;
        self.args.clear();
        if image == "scratch" {
            return Ok(());
        }
        if image.is_empty() {
            return Err("the image's name is empty".into());
        }
        if let Some(number) = self.build.stage_named(&image, self.number)
            && image.parse::<usize>().is_err()
        {
            self.stage = self.build.stage(number)?;
            return Ok(());
        }
        let image = self.build.base(&image)?;
        let config_id = BlobId::parse(image.manifest().config().digest().as_ref())?;
        let config = self.build.store.blobs().read_document(&config_id)?;
        let config = Config::parse(&config_id, &config)?;
        if !config.list("OnBuild").is_empty() {
            return Err("the base image has ONBUILD triggers, which are not supported".into());
        }
        let diff_ids = image.config().rootfs().diff_ids().iter();
        let layers =
            image.manifest().layers().iter().zip(diff_ids).map(|(layer, diff_id)| Layer {
                descriptor: layer.clone(),
                diff_id: diff_id.clone(),
            });
        self.stage = Stage { config, layers: layers.collect() };
        Ok(())
    }

    fn execute(&mut self, instruction: &Instruction<'_>, text: &str) -> Outcome {
        match instruction {
            Instruction::Run(run) => return self.run(run, text),
            Instruction::Copy(copy) => {
                return self.copy(&copy.options, &copy.src, &copy.dest, false, text);
            }
            Instruction::Add(add) => {
                return self.copy(&add.options, &add.src, &add.dest, true, text);
            }
            Instruction::Workdir(dir) => return self.workdir(&dir.arguments.value, text),
            Instruction::Arg(arg) => self.declare(&arg.arguments.value)?,
            Instruction::Env(env) => {
                for (name, value) in self.pairs(&env.arguments.value)? {
                    self.stage.config.set_env(&name, &value);
                }
            }
            Instruction::Label(label) => {
                for (name, value) in self.pairs(&label.arguments.value)? {
                    self.stage.config.insert("Labels", &name, json!(value));
                }
            }
            Instruction::Cmd(cmd) => {
                let command = self.command(&cmd.arguments);
                self.stage.config.set("Cmd", json!(command));
                self.has_cmd = true;
            }
            Instruction::Entrypoint(entrypoint) => {
                let command = self.command(&entrypoint.arguments);
                self.stage.config.set("Entrypoint", json!(command));
                if !self.has_cmd {
                    self.stage.config.unset("Cmd");
                }
            }
            Instruction::Expose(expose) => self.expose(&expose.arguments)?,
            Instruction::Volume(volume) => self.volumes(&volume.arguments)?,
            Instruction::User(user) => {
                let user = self.expand(&user.arguments.value)?;
                self.stage.config.set("User", json!(user.trim()));
            }
            Instruction::Stopsignal(signal) => {
                let signal = self.expand(&signal.arguments.value)?;
                self.stage.config.set("StopSignal", json!(signal.trim()));
            }
            Instruction::Shell(shell) => {
                let shell: Vec<&str> = shell.arguments.iter().map(|a| a.value.as_ref()).collect();
                self.stage.config.set("Shell", json!(shell));
            }
            Instruction::Healthcheck(check) => {
                self.healthcheck(&check.options, &check.arguments)?;
            }
            Instruction::Maintainer(name) => self.stage.config.set_author(&name.name.value),
            Instruction::Onbuild(_) => return Err("ONBUILD is not supported".into()),
            _ => return Err("this instruction is not supported".into()),
        }
        self.stage.config.record(&self.created, text, None);
        Ok(())
    }

    /// A variable's value: ENV counts before ARG.
    fn lookup(&self, name: &str) -> Option<String> {
        let given = |name: &str| self.build.request.args.get(name).cloned();
        self.stage.config.env(name).or_else(|| match self.args.get(name) {
            Some(value) => value.clone(),
            None if PROXY_ARGS.contains(&name) => given(name),
            None => None,
        })
    }

    fn expand(&self, word: &str) -> Outcome<String> {
        words::expand(word, self.escape, &|name| self.lookup(name)).map_err(Fault::Why)
    }

    /// `ARG NAME[=DEFAULT]...`: what the operator gives counts before the default.
    fn declare(&mut self, arguments: &str) -> Outcome {
        for word in words::split(arguments, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(self.expand(default)?)),
                None => (word.as_str(), None),
            };
            let name = self.expand(name)?;
            let platform = PLATFORM_ARGS.iter().find(|(known, _)| *known == name);
            let given = self.build.request.args.get(&name).cloned();
            let value = given
                .or(default)
                .or_else(|| self.global(&name))
                .or_else(|| platform.map(|(_, value)| (*value).to_owned()));
            self.args.insert(name, value);
        }
        Ok(())
    }

    /// The default of an ARG before the first FROM, which an ARG of that name brings in.
    fn global(&self, name: &str) -> Option<String> {
        for arg in self.build.dockerfile.global_args() {
            for word in words::split(&arg.arguments.value, self.escape) {
                if let Some((own, default)) = word.split_once('=')
                    && own == name
                {
                    return self.expand(default).ok();
                }
            }
        }
        None
    }

    fn shell(&self) -> Vec<String> {
        match self.stage.config.list("Shell") {
            shell if shell.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell,
        }
    }

    fn command(&self, command: &Command<'_>) -> Vec<String> {
        match command {
            Command::Exec(words) => words.value.iter().map(|word| word.value.to_string()).collect(),
            Command::Shell(text) => {
                let mut command = self.shell();
                command.push(words::join_lines(text.value, self.escape));
                command
            }
            _ => Vec::new(),
        }
    }

    /// The layers so far as folders, topmost first.
    fn folders(&self) -> Outcome<Vec<PathBuf>> {
        folders(self.build.store, &self.stage.layers)
    }

    /// A new folder for a step, removed with the build.
    fn folder(&mut self, name: &str) -> Outcome<PathBuf> {
        self.build.steps += 1;
        let path = self.build.work.join(format!("{}-{name}", self.build.steps));
        let mode = Mode::from_bits_truncate(0o755);
        nix::unistd::mkdir(&path, mode).map_err(|e| io_error("create", &path)(e.into()))?;
        Ok(path)
    }
}

/// Layers as folders, topmost first.
fn folders(store: &crate::store::Store, layers: &[Layer]) -> Outcome<Vec<PathBuf>> {
    let layers = layers.iter().rev().map(|layer| (&layer.descriptor, &layer.diff_id));
    Ok(unpack::ensure_all(store, &layers.collect::<Vec<_>>())?)
}

/// Where an instruction begins in the Dockerfile.
pub(super) fn start_of(instruction: &Instruction<'_>) -> usize {
    let keyword = match instruction {
        Instruction::Add(it) => &it.add,
        Instruction::Arg(it) => &it.arg,
        Instruction::Cmd(it) => &it.cmd,
        Instruction::Copy(it) => &it.copy,
        Instruction::Entrypoint(it) => &it.entrypoint,
        Instruction::Env(it) => &it.env,
        Instruction::Expose(it) => &it.expose,
        Instruction::From(it) => &it.from,
        Instruction::Healthcheck(it) => &it.healthcheck,
        Instruction::Label(it) => &it.label,
        Instruction::Maintainer(it) => &it.maintainer,
        Instruction::Onbuild(it) => &it.onbuild,
        Instruction::Run(it) => &it.run,
        Instruction::Shell(it) => &it.shell,
        Instruction::Stopsignal(it) => &it.stopsignal,
        Instruction::User(it) => &it.user,
        Instruction::Volume(it) => &it.volume,
        Instruction::Workdir(it) => &it.workdir,
        _ => return 0,
    };
    keyword.span.start
}

/// Seconds since 1970 as RFC 3339 has them.
fn rfc3339(epoch: u64) -> String {
    let time = i64::try_from(epoch).ok().and_then(|epoch| DateTime::from_timestamp(epoch, 0));
    // Beyond the year 262142 there is no date to tell.
    time.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}
