//! Building images from Dockerfiles.
//!
//! `build` is the story: parse, build the wanted stage and those it takes from, commit.
//! `dockerfile` is the grammar and `stage` executes instructions; what each needs is beside it:
//! `words` (quotes and variables), `context` (files to copy from), `copy`, `fetch` (files of other
//! hosts) and `layer` (from files to a blob). Who runs a RUN is the caller's affair
//! ([`BuildRunner`]).

mod chmod;
mod config;
mod context;
mod copy;
mod dockerfile;
mod error;
mod fetch;
mod layer;
mod owner;
mod pattern;
mod request;
mod stage;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isolab_images::ingest::{bad_document, descriptor, full_name, io_error, with_name};
use isolab_images::{BuildRunner, Image, ImageError, Store};
use isolab_registry::RegistryOptions;
use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType};

use dockerfile::{Dockerfile, Instruction, Keyword};
use stage::{Stage, StageBuilder};

pub use error::{BuildError, BuildNeed};
pub use request::{BuildNews, BuildRequest, Secret};

/// Asked between files: fails when the build is to end.
type Check<'a> = &'a dyn Fn() -> io::Result<()>;

/// What a Dockerfile is called, in podman's order.
const FILE_NAMES: [&str; 2] = ["Containerfile", "Dockerfile"];

/// Given to every build without an ARG that takes it (Dockerfile reference, "Predefined ARGs",
/// "BuildKit built-in build args").
const ARGS_WITHOUT_DECLARATION: [&str; 2] = ["SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE"];

/// Builds an image. `log` is told what is done.
///
/// # Errors
/// The Dockerfile does not parse, an instruction fails, a base image cannot be had.
pub fn build(
    store: &Store,
    request: &BuildRequest,
    runner: &dyn BuildRunner,
    log: &mut dyn FnMut(BuildNews<'_>),
) -> Result<Image, BuildError> {
    let names = request.names.iter().map(|name| full_name(name));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let path = dockerfile_of(request);
    let text = fs::read(&path).map_err(io_error("read", &path))?;
    let dockerfile = dockerfile::parse(&String::from_utf8_lossy(&text))
        .map_err(|e| BuildError::Dockerfile { path: path.clone(), why: e.to_string() })?;
    let context = &request.context;
    if !context.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(io_error("build from", context)(error).into());
    }
    let _writing = store.writing()?;
    let work = store.work_folder("build")?;
    let mut build = Build {
        store,
        request,
        runner,
        log,
        dockerfile: &dockerfile,
        path: &path,
        work: work.path(),
        globals: BTreeMap::new(),
        stages: HashMap::new(),
        bases: HashMap::new(),
        used_args: declared(&dockerfile),
        steps: 0,
    };
    let wanted = build.wanted_stage()?;
    stage::declare_globals(&mut build)?;
    let stage = build.stage(wanted)?;
    build.warn_of_unused_args();
    let entries = commit(store, &stage, names)?;
    store.add_to_index(&entries)?;
    Ok(store.resolve(entries[0].digest().as_ref())?)
}

/// A given name counts from where we are, and else from the context, as podman's.
fn dockerfile_of(request: &BuildRequest) -> PathBuf {
    let context = &request.context;
    match &request.dockerfile {
        Some(path) if path.exists() || !context.join(path).exists() => path.clone(),
        Some(path) => context.join(path),
        None => {
            let found = FILE_NAMES.iter().map(|name| context.join(name)).find(|p| p.exists());
            found.unwrap_or_else(|| context.join("Dockerfile"))
        }
    }
}

/// A build under way.
struct Build<'a> {
    store: &'a Store,
    request: &'a BuildRequest,
    runner: &'a dyn BuildRunner,
    log: &'a mut dyn FnMut(BuildNews<'_>),
    dockerfile: &'a Dockerfile,
    path: &'a Path,
    work: &'a Path,
    /// ARGs before the first FROM.
    globals: BTreeMap<String, Option<String>>,
    /// Those that are built.
    stages: HashMap<usize, Stage>,
    /// Images by the names they were asked for.
    bases: HashMap<String, Image>,
    /// Names that an ARG takes a value for.
    used_args: BTreeSet<String>,
    /// Counts the folders of steps.
    steps: usize,
}

impl Build<'_> {
    fn wanted_stage(&self) -> Result<usize, BuildError> {
        let end = self.dockerfile.stages.len();
        let Some(target) = &self.request.target else { return Ok(end - 1) };
        self.stage_named(target, end).ok_or_else(|| BuildError::Dockerfile {
            path: self.path.to_owned(),
            why: format!("there is no stage `{target}`"),
        })
    }

    /// The stage of that name or number, of those before `end`; of several the last.
    fn stage_named(&self, name: &str, end: usize) -> Option<usize> {
        let is_it = |stage: &dockerfile::StageSource| {
            stage.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        let by_name = self.dockerfile.stages[..end].iter().rposition(is_it);
        by_name.or_else(|| name.parse().ok().filter(|number| *number < end))
    }

    /// Builds a stage unless that is done. Stages that nobody needs are never built.
    fn stage(&mut self, number: usize) -> Result<Stage, BuildError> {
        if let Some(stage) = self.stages.get(&number) {
            return Ok(stage.clone());
        }
        let stage = StageBuilder::build(self, number)?;
        self.stages.insert(number, stage.clone());
        Ok(stage)
    }

    /// An image of the store, or else of its registry.
    fn base(&mut self, name: &str) -> Result<Image, BuildError> {
        if let Some(image) = self.bases.get(name) {
            return Ok(image.clone());
        }
        let image = match self.store.resolve(name) {
            Err(ImageError::NotFound(_)) => {
                self.tell(&format!("pulling {name}"));
                let BuildRequest { insecure, cert_dir, .. } = self.request;
                let (insecure, cert_dir) = (*insecure, cert_dir.as_deref());
                let options = RegistryOptions { insecure, cert_dir, ..RegistryOptions::default() };
                isolab_registry::pull(self.store, name, options)?
            }
            other => other?,
        };
        self.bases.insert(name.to_owned(), image.clone());
        Ok(image)
    }

    fn tell(&mut self, line: &str) {
        (self.log)(BuildNews::Step(line));
    }

    fn warn(&mut self, line: &str) {
        (self.log)(BuildNews::Warning(line));
    }

    fn warn_of_unused_args(&mut self) {
        let is_known = |name: &&String| {
            self.used_args.contains(*name)
                || stage::PROXY_ARGS.contains(&name.as_str())
                || ARGS_WITHOUT_DECLARATION.contains(&name.as_str())
        };
        let mut unused: Vec<String> =
            self.request.args.keys().filter(|name| !is_known(name)).cloned().collect();
        unused.sort();
        if !unused.is_empty() {
            self.warn(&format!("no ARG takes the build argument {}", unused.join(", ")));
        }
    }

    /// An instruction that failed.
    fn failed(
        &self,
        instruction: &Instruction,
        why: impl ToString,
        missing: Option<BuildNeed>,
    ) -> BuildError {
        BuildError::Step {
            path: self.path.to_owned(),
            line: instruction.line,
            instruction: instruction.text.clone(),
            why: why.to_string(),
            missing,
        }
    }
}

/// Names of ARGs anywhere in the Dockerfile, also in stages that are not built.
fn declared(dockerfile: &Dockerfile) -> BTreeSet<String> {
    let own = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let args = dockerfile.global.iter().chain(own).filter(|it| it.keyword == Keyword::Arg);
    let words = args.flat_map(|arg| words::split(&arg.arguments, dockerfile.escape));
    words.map(|word| word.split('=').next().unwrap_or_default().to_owned()).collect()
}

/// What long work asks between files.
fn check_of(runner: &dyn BuildRunner) -> impl Fn() -> io::Result<()> + '_ {
    move || match runner.is_interrupted() {
        true => Err(io::Error::other("the build was interrupted")),
        false => Ok(()),
    }
}

/// Writes a stage's configuration and manifest; gives index entries, at least one.
fn commit(store: &Store, stage: &Stage, names: Vec<String>) -> Result<Vec<Descriptor>, ImageError> {
    let config = stage.config.to_bytes();
    let config_id = store.take_in_bytes(&config)?;
    let config = descriptor(MediaType::ImageConfig, &config_id, config.len() as u64)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(stage.layers.iter().map(|layer| layer.descriptor.clone()).collect::<Vec<_>>())
        .build()
        .map_err(|e| bad_document("manifest", &config_id, e))?;
    let manifest =
        serde_json::to_vec(&manifest).map_err(|e| bad_document("manifest", &config_id, e))?;
    let id = store.take_in_bytes(&manifest)?;
    let entry = descriptor(MediaType::ImageManifest, &id, manifest.len() as u64)?;
    if names.is_empty() {
        return Ok(vec![with_name(&entry, None)]);
    }
    Ok(names.into_iter().map(|name| with_name(&entry, Some(name))).collect())
}
