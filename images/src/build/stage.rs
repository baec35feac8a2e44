//! One stage of a Dockerfile: a base image, and instructions that change it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat};
use nix::sys::stat::Mode;
use oci_spec::image::{Descriptor, MediaType};
use parse_dockerfile::{
    Command, Flag, FromInstruction, HealthcheckArguments, HereDoc, Instruction, JsonOrStringArray,
    RunInstruction, Source as Named, UnescapedString,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::cache::{self, CachedLayer, CachedStep};
use super::config::Config;
use super::context::Source;
use super::copy::{Ownership, Plan, Target};
use super::merged::Merged;
use super::{Build, BuildStep, layer, owner, words};
use crate::archive::descriptor;
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

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

    /// `NAME=value...`, or the old `NAME value with spaces`.
    fn pairs(&self, arguments: &str) -> Outcome<Vec<(String, String)>> {
        let words = words::split(arguments, self.escape);
        let Some(first) = words.first() else { return Err("NAME=value is missing".into()) };
        if !first.contains('=') {
            let rest = arguments.trim_start().strip_prefix(first.as_str()).unwrap_or_default();
            if rest.trim().is_empty() {
                return Err(format!("`{first}` has no value; write {first}=value").into());
            }
            return Ok(vec![(self.expand(first)?, self.expand(rest.trim())?)]);
        }
        let mut pairs = Vec::new();
        for word in &words {
            let (name, value) =
                word.split_once('=').ok_or_else(|| format!("`{word}` is no NAME=value"))?;
            let name = self.expand(name)?;
            if name.is_empty() {
                return Err(format!("`{word}` has no name").into());
            }
            pairs.push((name, self.expand(value)?));
        }
        Ok(pairs)
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

    fn expose(&mut self, ports: &[UnescapedString<'_>]) -> Outcome {
        for port in ports {
            for port in words::split(&self.expand(&port.value)?, self.escape) {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let (first, last) = number.split_once('-').unwrap_or((number, number));
                let parse = |text: &str| text.parse::<u16>();
                let (Ok(first), Ok(last)) = (parse(first), parse(last)) else {
                    return Err(format!("`{port}` is no port").into());
                };
                if !["tcp", "udp", "sctp"].contains(&protocol) || first > last {
                    return Err(format!("`{port}` is no port").into());
                }
                for number in first..=last {
                    let name = format!("{number}/{protocol}");
                    self.stage.config.insert("ExposedPorts", &name, json!({}));
                }
            }
        }
        Ok(())
    }

    fn volumes(&mut self, arguments: &JsonOrStringArray<'_, 1>) -> Outcome {
        let paths = match arguments {
            JsonOrStringArray::Json(paths) => &paths.value,
            JsonOrStringArray::String(paths) => paths,
        };
        for path in paths {
            let path = self.expand(&path.value)?;
            if path.is_empty() {
                return Err("a volume's path is empty".into());
            }
            self.stage.config.insert("Volumes", &path, json!({}));
        }
        Ok(())
    }

    fn healthcheck(
        &mut self,
        options: &[Flag<'_>],
        arguments: &HealthcheckArguments<'_>,
    ) -> Outcome {
        let mut check = serde_json::Map::new();
        match arguments {
            HealthcheckArguments::Cmd { arguments: Command::Shell(text), .. } => {
                let text = words::join_lines(text.value, self.escape);
                check.insert("Test".to_owned(), json!(["CMD-SHELL", text]));
            }
            HealthcheckArguments::Cmd { arguments, .. } => {
                let test = [vec!["CMD".to_owned()], self.command(arguments)].concat();
                check.insert("Test".to_owned(), json!(test));
            }
            _ => drop(check.insert("Test".to_owned(), json!(["NONE"]))),
        }
        for option in options {
            let value = option.value.as_ref().map(|value| value.value.as_ref()).unwrap_or("");
            let (key, value) = match option.name.value.as_ref() {
                "interval" => ("Interval", json!(nanoseconds(value)?)),
                "timeout" => ("Timeout", json!(nanoseconds(value)?)),
                "start-period" => ("StartPeriod", json!(nanoseconds(value)?)),
                "start-interval" => ("StartInterval", json!(nanoseconds(value)?)),
                "retries" => {
                    let retries = value.parse::<u32>();
                    ("Retries", json!(retries.map_err(|_| format!("`{value}` is no number"))?))
                }
                other => return Err(format!("unknown option --{other}").into()),
            };
            check.insert(key.to_owned(), value);
        }
        self.stage.config.set("Healthcheck", Value::Object(check));
        Ok(())
    }

    /// The layers so far as folders, topmost first.
    fn folders(&self) -> Outcome<Vec<PathBuf>> {
        folders(self.build.store, &self.stage.layers)
    }

    fn workdir(&mut self, argument: &str, text: &str) -> Outcome {
        let dir = self.expand(argument)?;
        let dir = Path::new("/").join(self.stage.config.text("WorkingDir")).join(dir.trim());
        let dir = Path::new("/").join(super::context::normal(&dir));
        let Some(name) = dir.to_str() else { return Err("the path is no UTF-8".into()) };
        self.stage.config.set("WorkingDir", json!(name));
        let image = Merged::new(self.folders()?);
        let found = image.resolve(&dir, true)?;
        let mut plan = Plan::new(Ownership::default(), false);
        match found.file {
            Some((_, metadata)) if metadata.is_dir() => {}
            Some(_) => return Err(format!("{name} is no folder").into()),
            None if found.path.as_os_str().is_empty() => {}
            None => plan.add_folder(found.path),
        }
        self.write(&plan, &image, text)
    }

    fn copy(
        &mut self,
        options: &[Flag<'_>],
        sources: &[Named<'_>],
        target: &UnescapedString<'_>,
        is_add: bool,
        text: &str,
    ) -> Outcome {
        let image = Merged::new(self.folders()?);
        let mut ownership = Ownership::default();
        let mut source = None;
        for option in options {
            let value = option.value.as_ref().map(|value| self.expand(&value.value)).transpose()?;
            match (option.name.value.as_ref(), value) {
                ("chown", Some(value)) => ownership.owner = Some(owner::resolve(&value, &image)?),
                ("chmod", Some(value)) => ownership.mode = Some(mode(&value)?),
                ("from", Some(value)) if !is_add => source = Some(self.other(&value)?),
                // Without effect on the files that there are in the end.
                ("link", None) => {}
                ("link", Some(value)) if value == "true" || value == "false" => {}
                (other, _) => return Err(format!("unknown option --{other}").into()),
            }
        }
        let (is_from, chown) = (source.is_some(), ownership.owner);
        let source = match source {
            Some(source) => source,
            None => {
                ownership.owner.get_or_insert((0, 0));
                let context = &self.build.request.context;
                Source::context(context, &self.ignore_file())?
            }
        };
        let workdir = self.stage.config.text("WorkingDir").to_owned();
        let target = Target::new(&self.expand(&target.value)?, &workdir, &image)?;
        let mut plan = Plan::new(ownership, is_from);
        let mut count = 0;
        for named in sources {
            let pattern = match named {
                Named::Path(path) => self.expand(&path.value)?,
                Named::HereDoc(document) => {
                    count += 1;
                    let text = self.here_document(document)?;
                    if target.names_folder || target.is_folder(&image)? {
                        return Err("a here-document needs a file's name to go to".into());
                    }
                    plan.add_text(target.path.clone(), text);
                    continue;
                }
                _ => return Err("this source is not supported".into()),
            };
            if is_add && pattern.contains("://") {
                let mend = "fetch it before the build and ADD or COPY the file";
                return Err(format!("ADD of a URL is not supported; {mend}").into());
            }
            let matching = source.matching(&pattern)?;
            if matching.is_empty() {
                let what = format!("there is no `{pattern}` in what is copied from");
                return Err(format!("{what} (.dockerignore counts)").into());
            }
            for path in matching {
                count += 1;
                if is_add && let Some(tree) = self.unpacked(&source, &path)? {
                    plan.set_owner(chown);
                    plan.add(&tree, Path::new(""), &target, &image)?;
                    plan.set_owner(ownership.owner);
                } else {
                    plan.add(&source, &path, &target, &image)?;
                }
            }
        }
        if count > 1 && !target.names_folder && !target.is_folder(&image)? {
            return Err("several files go into a folder: end its name with `/`".into());
        }
        self.write(&plan, &image, text)
    }

    /// A local archive's content, which ADD takes for it. None where it is none.
    fn unpacked(&mut self, source: &Source, path: &Path) -> Outcome<Option<Source>> {
        let Some((file, metadata)) = source.files().resolve(path, true)?.file else {
            return Ok(None);
        };
        if !metadata.is_file() || !unpack::is_archive(&file)? {
            return Ok(None);
        }
        let tree = self.folder("archive")?;
        unpack::unpack_archive(&path.to_string_lossy(), &file, &tree)?;
        Ok(Some(Source::layers(vec![tree])))
    }

    /// Another stage or image to copy from.
    fn other(&mut self, name: &str) -> Outcome<Source> {
        if let Some(number) = self.build.stage_named(name, self.number) {
            let stage = self.build.stage(number)?;
            return Ok(Source::layers(folders(self.build.store, &stage.layers)?));
        }
        let image = self.build.base(name)?;
        Ok(Source::layers(image.layers_unpacked()?))
    }

    /// The Dockerfile's own `NAME.dockerignore` counts before the context's.
    fn ignore_file(&self) -> PathBuf {
        let mut own = self.build.path.as_os_str().to_owned();
        own.push(".dockerignore");
        let own = PathBuf::from(own);
        if own.exists() { own } else { self.build.request.context.join(".dockerignore") }
    }

    fn here_document(&self, document: &HereDoc<'_>) -> Outcome<String> {
        if !document.expand {
            return Ok(document.value.to_string());
        }
        // Quotes are plain text in a here-document (POSIX shell, 2.7.4).
        let mut text = document.value.replace('"', "\\\"");
        text = format!("\"{text}\"");
        words::expand(&text, '\\', &|name| self.lookup(name)).map_err(Fault::Why)
    }

    fn run(&mut self, run: &RunInstruction<'_>, text: &str) -> Outcome {
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
        let script = match &run.here_docs[..] {
            [] => line,
            // The document is the script. The parser knows no other place for one.
            [only] => only.value.to_string(),
            _ => return Err("several here-documents are not supported".into()),
        };
        let mut command = self.shell();
        command.push(script);
        Ok(command)
    }

    /// Everything that a step's outcome depends on, as a digest. The layers stand for the image
    /// so far, so that the same step over the same files is found whatever led there.
    fn key(&self, kind: &str, inputs: &[u8]) -> BlobId {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(b"isolab build step, version 1");
        field(kind.as_bytes());
        for layer in &self.stage.layers {
            field(layer.diff_id.as_bytes());
        }
        field(&self.build.request.epoch.to_le_bytes());
        field(&[u8::from(self.build.request.host_network)]);
        field(inputs);
        BlobId::from_digest(&hasher.finalize())
    }

    fn cached(&mut self, key: &BlobId) -> Option<CachedStep> {
        if self.build.request.no_cache {
            return None;
        }
        let step = cache::find(self.build.store, key)?;
        (self.build.log)("    cached");
        Some(step)
    }

    /// Makes the layer of planned files.
    fn write(&mut self, plan: &Plan, image: &Merged, text: &str) -> Outcome {
        if plan.is_empty() {
            self.stage.config.record(&self.created, text, None);
            return Ok(());
        }
        let key = self.key("files", &plan.digest()?);
        if let Some(step) = self.cached(&key) {
            return self.take(step, text);
        }
        let upper = self.folder("upper")?;
        plan.write(&upper, image)?;
        self.finish(&key, &upper, text)
    }

    /// Packs what a step made, and remembers it.
    fn finish(&mut self, key: &BlobId, upper: &Path, text: &str) -> Outcome {
        let partial = self.build.work.join("layer");
        let layer = layer::pack(self.build.store, upper, self.build.request.epoch, &partial)?;
        let step = CachedStep { layer };
        cache::remember(self.build.store, key, &step)?;
        self.take(step, text)
    }

    fn take(&mut self, step: CachedStep, text: &str) -> Outcome {
        let Some(CachedLayer { digest, size, diff_id }) = step.layer else {
            self.stage.config.record(&self.created, text, None);
            return Ok(());
        };
        let id = BlobId::parse(&digest)?;
        let descriptor = descriptor(MediaType::ImageLayerGzip, &id, size)?;
        self.stage.config.record(&self.created, text, Some(&diff_id));
        self.stage.layers.push(Layer { descriptor, diff_id });
        Ok(())
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
    let unpacked = layers
        .iter()
        .rev()
        .map(|layer| unpack::ensure_unpacked(store, &layer.descriptor, &layer.diff_id));
    Ok(unpacked.collect::<Result<_, _>>()?)
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

fn mode(text: &str) -> Outcome<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("--chmod={text}: give the mode in octal digits, such as 755").into()),
    }
}

/// Durations as Go writes them: `30s`, `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Outcome<u64> {
    let wrong = || Fault::Why(format!("`{text}` is no duration such as 30s or 1m30s"));
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let factor = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(factor).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        rest = behind;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Seconds since 1970 as RFC 3339 has them.
fn rfc3339(epoch: u64) -> String {
    let time = i64::try_from(epoch).ok().and_then(|epoch| DateTime::from_timestamp(epoch, 0));
    // Beyond the year 262142 there is no date to tell.
    time.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}
