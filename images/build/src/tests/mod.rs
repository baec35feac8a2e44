//! Builds whose commands a stand-in runs: it writes files as the command says.

mod caching;
mod commands;
mod configuration;
mod failures;
mod files;
mod mounts;
mod remote;
mod stages;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use error_reporter::Report;
use isolab_images::testing::{add_image, gzip, layer as archive, new_store};
use isolab_images::{BuildStep, Merged, Mounted, Prune, StepMount};

use super::*;

/// `write NAME TEXT` writes, `remove NAME` leaves a whiteout, `fail` fails, `keep TARGET NAME` copies
/// a mounted file, `put TARGET NAME TEXT` writes into a mounted folder; all in shell form.
#[derive(Default)]
struct StandIn {
    steps: RefCell<Vec<BuildStep>>,
}

impl BuildRunner for StandIn {
    fn run(&self, step: &BuildStep) -> Result<i32, String> {
        self.steps.borrow_mut().push(step.clone());
        let script = step.args.last().unwrap();
        let words: Vec<&str> = script.split_whitespace().collect();
        let path = |name: &str| step.upper.join(name);
        match words[..] {
            ["write", name, text] => {
                fs::create_dir_all(path(name).parent().unwrap()).unwrap();
                fs::write(path(name), text).unwrap();
            }
            ["remove", name] => {
                use nix::sys::stat::{Mode, SFlag, makedev, mknod};
                mknod(&path(name), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap();
            }
            ["fail"] => return Ok(3),
            ["keep", target, name] => {
                fs::copy(mounted(step, target), path(name)).unwrap();
            }
            ["put", target, name, text] => {
                fs::write(mounted(step, target).join(name), text).unwrap()
            }
            _ => {}
        }
        Ok(0)
    }
}

/// What the step has at `target`.
fn mounted(step: &BuildStep, target: &str) -> PathBuf {
    let mount = step.mounts.iter().find(|mount| mount.target == target);
    match &mount.unwrap_or_else(|| panic!("nothing is at {target}")).what {
        Mounted::Path { source, .. } => source.clone(),
        Mounted::Memory { .. } => panic!("{target} is in memory"),
    }
}

struct Bench {
    dir: tempfile::TempDir,
    _store_dir: tempfile::TempDir,
    store: Store,
    runner: StandIn,
    log: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let (_store_dir, store) = new_store();
        let base = archive(&[
            ("etc/passwd", "root:x:0:0::/:\nweb:x:33:34::/:\n"),
            ("etc/group", "root:x:0:\nweb:x:34:\n"),
        ]);
        drop(add_image(&store, Some("base"), &[base]));
        let dir = tempfile::tempdir().unwrap();
        Self { dir, _store_dir, store, runner: StandIn::default(), log: Vec::new() }
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn request(&self) -> BuildRequest {
        BuildRequest {
            names: vec!["built".to_owned()],
            context: self.dir.path().to_owned(),
            dockerfile: None,
            args: HashMap::new(),
            secrets: HashMap::new(),
            target: None,
            no_cache: false,
            epoch: Some(0),
            host_network: false,
            insecure: false,
            cert_dir: None,
        }
    }

    fn try_build(&mut self, dockerfile: &str, request: BuildRequest) -> Result<Image, BuildError> {
        self.write("Dockerfile", dockerfile);
        let log = &mut self.log;
        let mut log = |news: BuildNews<'_>| match news {
            BuildNews::Step(line) => log.push(line.to_owned()),
            BuildNews::Warning(line) => log.push(format!("warning: {line}")),
        };
        build(&self.store, &request, &self.runner, &mut log)
    }

    fn build(&mut self, dockerfile: &str) -> Image {
        let request = self.request();
        self.try_build(dockerfile, request).unwrap()
    }

    fn fails(&mut self, dockerfile: &str) -> String {
        let request = self.request();
        Report::new(self.try_build(dockerfile, request).unwrap_err()).to_string()
    }

    fn config(&self) -> serde_json::Value {
        self.store.inspect("built").unwrap().config
    }
}

fn files(image: &Image) -> Merged {
    Merged::new(image.layers_unpacked().unwrap())
}

fn read(image: &Image, name: &str) -> String {
    files(image).read_text(name).unwrap()
}

fn metadata(image: &Image, name: &str) -> fs::Metadata {
    files(image).stat(Path::new(name)).unwrap().unwrap_or_else(|| panic!("no {name}")).1
}
