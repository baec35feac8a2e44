//! What an instance leaves behind in a program that drops it and goes on, unlike `isolab run`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use isolab_images::Store;
use isolab_isolation::timeline::Milestone;
use isolab_isolation::{
    Instance, InstanceSpec, Instances, Level, Link, Network, Patience, Request, Stdio, level,
};

use crate::{Sandbox, TIME_LIMIT, cgroups_named, folders_named};

const LEVEL: &str = "ISOLAB_TEST_LEVEL";

/// Runs the ignored test `alone`, which calls [`alone`], in a process of its own: others of this one
/// open files meanwhile.
pub fn leaves_nothing(level: &str, alone: &str) {
    in_a_process_of_its_own(level, alone);
}

/// Runs an ignored test with the level in its environment, and a store that has busybox.
pub(crate) fn in_a_process_of_its_own(level: &str, alone: &str) {
    let sandbox = Sandbox::with_busybox();
    let program = env::current_exe().expect("a test has a file");
    let (_open, stdin) = {
        let (reader, writer) = std::io::pipe().expect("pipes can be made");
        (writer, reader)
    };
    let mut command = Command::new(program);
    command.args([alone, "--exact", "--ignored", "--nocapture"]).stdin(stdin);
    command.env(LEVEL, level).env("XDG_DATA_HOME", sandbox.data());
    let output = command.output().expect("this program runs, as it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

/// The body of the ignored test.
pub fn alone() {
    let level = level_to_test();
    let name = format!("dropped-{}", std::process::id());
    let threads = threads();
    // What is made once for all, such as the image's disk.
    let mut first = create(level, &name, "true");
    first.start().expect("it starts");
    first.wait().expect("it ends");
    first.remove().expect("it goes");
    wait_for_threads(&threads);

    let before = Look::now(&name);
    drop(create(level, &name, "true"));
    before.wait_for(&name, "was created");

    let mut running = create(level, &name, "echo runs; sleep 1000");
    running.start().expect("it starts");
    let controller = running.controller().expect("there are descriptors");
    let deadline = Instant::now() + TIME_LIMIT;
    while running.milestones().at(Milestone::WorkloadStarted).is_none() {
        assert!(Instant::now() < deadline, "the workload has not started");
        thread::sleep(Duration::from_millis(10));
    }
    drop(running);
    // Whoever still has one of these does no harm.
    for _ in 0..3 {
        let _ = controller.signal(libc::SIGTERM);
    }
    drop(controller);
    before.wait_for(&name, "was running");

    let mut ended = create(level, &name, "true");
    ended.start().expect("it starts");
    ended.wait().expect("it ends");
    drop(ended);
    before.wait_for(&name, "had ended");
}

/// The level that [`in_a_process_of_its_own`] was told.
pub(crate) fn level_to_test() -> Level {
    env::var(LEVEL).expect("set by the caller").parse().expect("a level")
}

fn create(isolation: Level, name: &str, script: &str) -> Box<dyn Instance> {
    create_with(isolation, name, script, Stdio::Inherit { stdin: true })
}

/// An instance of busybox that runs `script`.
pub(crate) fn create_with(
    isolation: Level,
    name: &str,
    script: &str,
    stdio: Stdio,
) -> Box<dyn Instance> {
    let image = Store::open_default().and_then(|store| store.resolve("busybox"));
    let image = image.expect("busybox is loaded");
    let name = name.parse().expect("a name");
    let instances = Instances::open_default().expect("there is a data folder");
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let request = Request { command, hostname: "dropped".to_owned(), ..Request::default() };
    let spec = InstanceSpec {
        spec: request.to_spec(isolation, &image).expect("a specification"),
        folder: instances.create(Some(name), isolation).expect("the name is free"),
        image,
        filesystem: request.filesystem.clone(),
        init: false,
        stdio,
        kernel: None,
        patience: Patience::default(),
        network: Network::of(Link::None),
    };
    level(isolation).create(spec).expect("it can be made")
}

/// What could be left: of this process and of the host.
#[derive(Debug, PartialEq)]
struct Look {
    /// How many descriptors show each file, their numbers left out.
    files: BTreeMap<String, usize>,
    /// Threads by name.
    threads: Vec<String>,
    children: String,
    mounts: usize,
    /// Folders of cgroups and of the store that have the instance's name.
    folders: Vec<String>,
}

impl Look {
    fn now(name: &str) -> Self {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/fd").expect("/proc is mounted").flatten() {
            // The one that reads this folder is gone.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.display().to_string();
            let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind);
            *files.entry(kind.to_owned()).or_default() += 1;
        }
        let children = of_threads("children").concat();
        let mounts = text(Path::new("/proc/self/mountinfo")).lines().count();
        let data = env::var("XDG_DATA_HOME").expect("set by leaves_nothing");
        let folders = [cgroups_named(name), folders_named(Path::new(&data), name)].concat();
        Self { files, threads: threads(), children, mounts, folders }
    }

    /// Waits for threads on their way out.
    #[track_caller]
    fn wait_for(&self, name: &str, state: &str) {
        let deadline = Instant::now() + TIME_LIMIT;
        while Self::now(name) != *self {
            if Instant::now() > deadline {
                assert_eq!(Self::now(name), *self, "an instance that {state} left something");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Threads of this process by name.
fn threads() -> Vec<String> {
    let mut threads = of_threads("comm");
    threads.sort();
    threads
}

/// Waits until the others are gone, which ended what they did but not yet themselves.
fn wait_for_threads(these: &[String]) {
    let deadline = Instant::now() + TIME_LIMIT;
    while threads() != these {
        assert!(Instant::now() < deadline, "{:?} and not {these:?}", threads());
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a file of /proc says of each thread of this process.
fn of_threads(file: &str) -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc is mounted").flatten();
    tasks.map(|task| text(&task.path().join(file))).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
