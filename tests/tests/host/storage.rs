//! File systems that cannot take what an instance writes.

use std::fs;
use std::path::Path;
use std::process::Command;

use isolab_tests::{Done, Run, Sandbox, busybox_layout, install_isolab, isolab_path, text};

/// Runs a script in a mount namespace of its own, with `isolab` as `$0`.
fn with_mounts(script: &str, data: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script]).arg(isolab_path());
    Run::new(command).args(arguments).env("XDG_DATA_HOME", text(data)).finish()
}

#[test]
fn a_store_on_an_overlay_is_told_by_run_and_by_check() {
    let dir = Sandbox::on_disk();
    let (data, layout) = (dir.data().join("data"), busybox_layout());
    for name in ["data", "upper", "work"] {
        fs::create_dir(dir.data().join(name)).unwrap();
    }
    let mount =
        "mount -t overlay overlay -o lowerdir=$1,upperdir=$1/../upper,workdir=$1/../work $1";
    for level in ["container", "process"] {
        let script = format!(
            "{mount}; $0 image load $2 >/dev/null; $0 run --isolation {level} busybox echo here"
        );
        let run = with_mounts(&script, &data, &[text(&data), text(&layout)]);
        run.fails_with(125, &["overlayfs", "XDG_DATA_HOME", text(&data)]);
    }
    let check = with_mounts(&format!("{mount}; $0 check --format json"), &data, &[text(&data)]);
    let report: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    for verdict in &report["levels"].as_array().unwrap()[..2] {
        assert_eq!(verdict["ready"], false, "{verdict}");
    }
    assert!(check.stdout.contains(text(&data)), "{}", check.stdout);
}

#[test]
fn a_root_that_is_no_mount_is_told_with_the_way_out() {
    let sandbox = Sandbox::with_busybox();
    let root = sandbox.data();
    for name in ["bin", "proc", "sys", "dev"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    install_isolab(&root.join("bin"));
    for level in ["container", "process"] {
        let run = format!(
            "for name in proc sys dev; do mount --rbind /$name $1/$name; done
             XDG_DATA_HOME=/ exec chroot $1 /bin/isolab run --isolation {level} busybox echo here"
        );
        let done = with_mounts(&run, root, &[text(root)]);
        done.fails_with(125, &["no mount point", "hint: ", "mount --bind"]);
        let done = with_mounts(&format!("mount --bind $1 $1\n{run}"), root, &[text(root)]);
        assert_eq!(done.success(), "here\n", "{level}");
    }
}

#[test]
fn a_file_system_without_inodes_is_told_and_never_shows_a_read_only_root() {
    let sandbox = Sandbox::with_busybox();
    let instances = sandbox.data().join("isolab/instances");
    fs::create_dir_all(&instances).unwrap();
    let script = "mount -t tmpfs -o nr_inodes=$1,mode=700 tmpfs $2
                  exec $0 run busybox sh -c 'touch /tmp/new 2>&1; echo ran'";
    let (mut told, mut ran) = (0, 0);
    for inodes in 2..40 {
        let run = with_mounts(script, sandbox.data(), &[&inodes.to_string(), text(&instances)]);
        assert!(!run.stdout.contains("Read-only"), "{inodes}: {run:?}");
        match run.code() {
            Some(0) => ran += 1,
            code => {
                assert_eq!(code, Some(125), "{inodes}: {run:?}");
                let words = ["No space left", "inodes are free"];
                assert!(words.iter().any(|word| run.stderr.contains(word)), "{inodes}: {run:?}");
                told += i32::from(run.stderr.contains("inodes are free"));
            }
        }
    }
    assert!(told > 0 && ran > 0, "{told} told, {ran} ran");
}
