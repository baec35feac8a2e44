//! How long create + start + wait of `/bin/true` takes, beside runc and crun where installed, interleaved.
//!
//! `cargo run --release -p isolab-container --example startup -- BUSYBOX [ROUNDS]`, as root.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, Limits, RootFilesystem, Stdio, default_spec,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let busybox =
        arguments.next().ok_or("usage: startup BUSYBOX [ROUNDS]; BUSYBOX is a static busybox")?;
    let rounds: u32 = arguments.next().map_or(Ok(40), |rounds| rounds.parse())?;
    let bundle = tempfile::tempdir()?;
    make_bundle(bundle.path(), Path::new(&busybox))?;
    let mut peers = Vec::new();
    for peer in ["runc", "crun"].into_iter().filter(|peer| installed(peer)) {
        match run_peer(peer, &format!("probe-{}", std::process::id()), bundle.path()) {
            Ok(()) => peers.push(peer),
            Err(error) => println!("left out: {error}"),
        }
    }
    let mut samples = vec![("isolab (library)", Vec::new())];
    samples.extend(peers.iter().map(|peer| (*peer, Vec::new())));
    for round in 0..rounds {
        for (subject, times) in &mut samples {
            let id = format!("startup-{}-{round}", std::process::id());
            let begin = Instant::now();
            match *subject {
                "runc" | "crun" => run_peer(subject, &id, bundle.path())?,
                _ => run_ours(&id, bundle.path())?,
            }
            times.push(begin.elapsed());
        }
    }
    for (subject, times) in &mut samples {
        times.sort_unstable();
        let milliseconds = |time: &Duration| time.as_secs_f64() * 1000.0;
        let (least, median) = (milliseconds(&times[0]), milliseconds(&times[times.len() / 2]));
        println!("{subject:18} min {least:7.2} ms  median {median:7.2} ms  ({} runs)", times.len());
    }
    Ok(())
}

fn make_bundle(bundle: &Path, busybox: &Path) -> Outcome<()> {
    let root = bundle.join("rootfs");
    for directory in ["bin", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::create_dir(bundle.join("state"))?;
    fs::copy(busybox, root.join("bin/true"))?;
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec()?)?)?;
    Ok(())
}

fn spec() -> Outcome<isolab_container::oci::Spec> {
    let mut spec = default_spec("bench", vec!["/bin/true".into()], vec![], Limits::default())?;
    // Crun 1.8 refuses newer ones.
    spec.set_version("1.0.2".into());
    Ok(spec)
}

fn run_ours(id: &str, bundle: &Path) -> Outcome<()> {
    let mut container = Container::create(ContainerConfig {
        id: id.to_owned(),
        spec: spec()?,
        rootfs: RootFilesystem::Directory(bundle.join("rootfs")),
        bundle: Some(bundle.to_path_buf()),
        stdio: Stdio::null(),
        cgroup: CgroupPlacement::Own,
        map_ids: false,
        keep_keyring: false,
        create_cwd: false,
        cgroup_manager: None,
        no_pivot: false,
        kill_with_parent: false,
        owner_lock: None,
    })?;
    container.start()?;
    let status = container.wait()?;
    container.remove()?;
    if status.code() == 0 { Ok(()) } else { Err(format!("our container: {status}").into()) }
}

fn run_peer(peer: &str, id: &str, bundle: &Path) -> Outcome<()> {
    let output = Command::new(peer)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(id)
        .stdin(ProcessStdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{peer}: {} {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
