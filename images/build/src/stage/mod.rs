//! One stage of a Dockerfile: a base image, and instructions that change it.
//!
//! `base` is FROM, `variables` ARG and what names stand for, `files` WORKDIR, `transfer` COPY and
//! ADD with `remote` for what is on other hosts, `run` RUN with `mounts`, `settings` what changes
//! the configuration only, `layers` the way into the image.

mod base;
mod files;
mod layers;
mod mount_points;
mod mounts;
mod remote;
mod run;
mod settings;
mod transfer;
mod variables;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat, Utc};
use isolab_images::ingest::{ensure_all, io_error};
use isolab_images::{ImageError, Store};
use nix::sys::stat::Mode;
use oci_spec::image::Descriptor;
use serde_json::json;

use crate::config::Config;
use crate::dockerfile::{Instruction, Keyword, arguments};
use crate::{Build, BuildError, BuildNeed, check_of};

pub(super) use variables::{PROXY_ARGS, declare_globals};

/// What a stage has become.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) config: Config,
    /// The lowest first.
    pub(super) layers: Vec<Layer>,
    /// ARGs, which stages that build on this one have too.
    args: BTreeMap<String, Option<String>>,
}

#[derive(Clone)]
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    diff_id: String,
}

/// A stage that is being built.
pub(super) struct StageBuilder<'a, 'b> {
    build: &'a mut Build<'b>,
    number: usize,
    /// Its ARGs are those that were declared so far, with their values where they have one.
    stage: Stage,
    escape: char,
    /// Whether this stage has a CMD of its own: ENTRYPOINT takes away the base's.
    has_cmd: bool,
}

/// What failed, without the place, which the caller knows.
type Outcome<T = ()> = Result<T, Fault>;

enum Fault {
    /// What is wrong with the instruction; the place is added.
    Why(String),
    /// This instruction needs what was not given.
    Missing(BuildNeed),
    /// An error that tells everything itself.
    Complete(BuildError),
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        Self::Complete(error.into())
    }
}

impl From<BuildError> for Fault {
    fn from(error: BuildError) -> Self {
        Self::Complete(error)
    }
}

impl From<BuildNeed> for Fault {
    fn from(need: BuildNeed) -> Self {
        Self::Missing(need)
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

impl<'a, 'b> StageBuilder<'a, 'b> {
    /// Builds the stage with this number.
    pub(super) fn build(build: &'a mut Build<'b>, number: usize) -> Result<Stage, BuildError> {
        let source = &build.dockerfile.stages[number];
        let escape = build.dockerfile.escape;
        let stage = Stage { config: Config::empty(), layers: Vec::new(), args: BTreeMap::new() };
        let mut builder = Self { build, number, stage, escape, has_cmd: false };
        builder.guard(&source.from, |builder| builder.from(source))?;
        for instruction in &source.instructions {
            builder.build.tell(&format!("[stage {number}] {}", instruction.text));
            builder.guard(instruction, |builder| builder.execute(instruction))?;
        }
        Ok(builder.stage)
    }

    fn guard(
        &mut self,
        instruction: &Instruction,
        act: impl FnOnce(&mut Self) -> Outcome,
    ) -> Result<(), BuildError> {
        let outcome = self.check().and_then(|()| act(self));
        outcome.map_err(|fault| match fault {
            Fault::Complete(error) => error,
            Fault::Why(why) => self.build.failed(instruction, why, None),
            Fault::Missing(need) => self.build.failed(instruction, &need, Some(need.clone())),
        })
    }

    /// Fails when the build is to end.
    fn check(&self) -> Outcome {
        Ok(check_of(self.build.runner)()?)
    }

    fn execute(&mut self, it: &Instruction) -> Outcome {
        let text = &it.text;
        match it.keyword {
            Keyword::Run => return self.run(it),
            Keyword::Copy | Keyword::Add => return self.transfer(it),
            Keyword::Workdir => return self.workdir(&it.arguments, text),
            Keyword::Arg => self.declare(&it.arguments)?,
            Keyword::Env => {
                for (name, value) in self.pairs(&it.arguments)? {
                    self.stage.config.set_env(&name, &value);
                }
            }
            Keyword::Label => {
                for (name, value) in self.pairs(&it.arguments)? {
                    self.stage.config.insert("Labels", &name, json!(value));
                }
            }
            Keyword::Cmd => {
                self.set_command("Cmd", &it.arguments);
                self.has_cmd = true;
            }
            Keyword::Entrypoint => {
                self.set_command("Entrypoint", &it.arguments);
                if !self.has_cmd {
                    self.stage.config.unset("Cmd");
                }
            }
            Keyword::Expose => self.expose(&it.arguments)?,
            Keyword::Volume => self.volumes(&it.arguments)?,
            Keyword::User => {
                let user = self.expand(&it.arguments)?;
                self.stage.config.set("User", json!(user.trim()));
            }
            Keyword::Stopsignal => {
                let signal = self.expand(&it.arguments)?;
                self.stage.config.set("StopSignal", json!(signal.trim()));
            }
            Keyword::Shell => match arguments::json(&it.arguments) {
                Some(shell) if !shell.is_empty() => self.stage.config.set("Shell", json!(shell)),
                _ => return Err("SHELL takes the form [\"program\", \"argument\"]".into()),
            },
            Keyword::Healthcheck => self.healthcheck(it)?,
            Keyword::Maintainer => self.stage.config.set_author(&it.arguments),
            Keyword::Onbuild => self.keep_trigger(it),
            Keyword::From => return Err("FROM begins a stage".into()),
        }
        self.record(text, None);
        Ok(())
    }

    fn shell(&self) -> Vec<String> {
        match self.stage.config.list("Shell") {
            shell if shell.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell,
        }
    }

    /// The exec form as it is, or else the shell with the text.
    fn command(&self, arguments: &str) -> Vec<String> {
        arguments::json(arguments).unwrap_or_else(|| {
            let mut command = self.shell();
            command.push(arguments.to_owned());
            command
        })
    }

    /// `[]` and nothing at all take away what the base has.
    fn set_command(&mut self, key: &str, arguments: &str) {
        match self.command(arguments) {
            command if command.is_empty() || arguments.is_empty() => self.stage.config.unset(key),
            command => self.stage.config.set(key, json!(command)),
        }
    }

    /// The layers so far as folders, topmost first.
    fn folders(&self) -> Outcome<Vec<PathBuf>> {
        folders(self.build.store, &self.stage.layers)
    }

    /// A new folder for a step, removed with the build.
    fn folder(&mut self, name: &str) -> Outcome<PathBuf> {
        let path = self.place(name);
        let mode = Mode::from_bits_truncate(0o755);
        nix::unistd::mkdir(&path, mode).map_err(|e| io_error("create", &path)(e.into()))?;
        Ok(path)
    }

    /// A new name for a file of a step, removed with the build.
    fn place(&mut self, name: &str) -> PathBuf {
        self.build.steps += 1;
        self.build.work.join(format!("{}-{name}", self.build.steps))
    }
}

/// Layers as folders, topmost first.
fn folders(store: &Store, layers: &[Layer]) -> Outcome<Vec<PathBuf>> {
    let layers = layers.iter().rev().map(|layer| (&layer.descriptor, &layer.diff_id));
    Ok(ensure_all(store, &layers.collect::<Vec<_>>())?)
}

/// The time of what is made now, as RFC 3339 has it: the build's epoch if it has one.
fn now(epoch: Option<u64>) -> String {
    let time = match epoch {
        None => Utc::now(),
        // Beyond the year 262142 there is no date to tell.
        Some(epoch) => {
            let seconds = i64::try_from(epoch).ok();
            seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).unwrap_or_default()
        }
    };
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
