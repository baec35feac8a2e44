use std::fs;
use std::io;
use std::sync::mpsc;
use std::thread;

use error_reporter::Report;
use tempfile::TempDir;

use super::*;
use crate::disk::TopFolder;
use crate::record::Owner;

fn volumes() -> (TempDir, Volumes) {
    let folder = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(&folder.path().join("volumes")).unwrap();
    (folder, volumes)
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

#[test]
fn a_volume_is_made_once_and_removed_when_nobody_uses_it() {
    let (_dir, volumes) = volumes();
    let web = || NewVolume { name: Some(name("web")), ..NewVolume::default() };
    let made = volumes.create(web()).unwrap();
    assert_eq!(volumes.get(&name("web")).unwrap(), made);
    assert!(matches!(volumes.create(web()), Err(VolumeError::Exists(_))));
    let (first, second) = (
        volumes.use_folder(&name("web"), None, None).unwrap(),
        volumes.use_folder(&name("web"), None, None).unwrap(),
    );
    assert_eq!(first.path(), second.path());
    fs::write(first.path().join("kept"), "x").unwrap();
    drop(first);
    assert!(volumes.is_used(&name("web")).unwrap());
    assert!(matches!(volumes.remove(&name("web")), Err(VolumeError::InUse(_))));
    assert_eq!(fs::read(second.path().join("kept")).unwrap(), b"x");
    drop(second);
    assert!(volumes.remove(&name("web")).unwrap() > 0);
    assert!(matches!(volumes.remove(&name("web")), Err(VolumeError::Unknown(_))));
    assert_eq!(volumes.list().unwrap(), []);
}

#[test]
fn the_first_user_fills_it_and_a_failure_leaves_it_to_the_next() {
    let (_dir, volumes) = volumes();
    let fail = |folder: &Path| {
        fs::write(folder.join("half"), "x")?;
        Err(io::ErrorKind::StorageFull.into())
    };
    let failed = volumes.use_folder(&name("v"), None, Some(&fail)).unwrap_err();
    assert!(Report::new(&failed).to_string().contains("cannot fill volume `v`"), "{failed:?}");
    let fill = |word: &'static str| move |folder: &Path| fs::write(folder.join("first"), word);
    let lease = volumes.use_folder(&name("v"), None, Some(&fill("one"))).unwrap();
    let again = volumes.use_folder(&name("v"), None, Some(&fill("two"))).unwrap();
    assert_eq!(fs::read_to_string(again.path().join("first")).unwrap(), "one");
    let names: Vec<_> =
        fs::read_dir(lease.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["first"]);
    // Whoever does not fill it wants it as it is, and so does the next.
    let _first = volumes.use_folder(&name("empty"), None, None).unwrap();
    let second = volumes.use_folder(&name("empty"), None, Some(&fill("late"))).unwrap();
    assert_eq!(fs::read_dir(second.path()).unwrap().count(), 0);
}

#[test]
fn two_first_users_at_once_are_one_after_the_other() {
    let (_dir, volumes) = volumes();
    let (sender, filled) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..8 {
            let sender = sender.clone();
            let volumes = &volumes;
            scope.spawn(move || {
                let fill = |folder: &Path| {
                    sender.send(()).unwrap();
                    fs::write(folder.join("a"), "x")
                };
                let lease = volumes.use_folder(&name("v"), None, Some(&fill)).unwrap();
                assert_eq!(fs::read(lease.path().join("a")).unwrap(), b"x");
            });
        }
    });
    drop(sender);
    assert_eq!(filled.iter().count(), 1);
}

#[test]
fn a_disk_is_one_user_s_at_a_time_and_no_folder() {
    let (_dir, volumes) = volumes();
    let inside = tempfile::tempdir().unwrap();
    fs::write(inside.path().join("first"), "there").unwrap();
    let run = |command: &mut std::process::Command, disk: &Path| {
        let output = command.arg("-d").arg(inside.path()).arg(disk).output()?;
        Ok((output, TopFolder { uid: 12, gid: 34, mode: 0o2750 }))
    };
    let small = NewVolume { name: Some(name("d")), size: Some(8 << 20), ..NewVolume::default() };
    volumes.create(small).unwrap();
    let lease = volumes.use_disk(&name("d"), None, run).unwrap();
    assert_eq!(fs::metadata(lease.path()).unwrap().len(), 8 << 20);
    assert_ne!(lease.uuid(), [0; 16]);
    assert!(matches!(volumes.use_disk(&name("d"), None, run), Err(VolumeError::DiskInUse(_))));
    let look = |request: &str| {
        let mut debugfs = std::process::Command::new("debugfs");
        let output = debugfs.args(["-R", request]).arg(lease.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let top = look("stat /");
    assert!(top.contains("Mode:  02750") && top.contains("User:    12   Group:    34"), "{top}");
    assert!(look("cat first") == "there" && !look("ls").contains("lost+found"), "{}", look("ls"));
    let uuid = lease.uuid();
    drop(lease);
    assert_eq!(volumes.use_disk(&name("d"), None, run).unwrap().uuid(), uuid);
    assert!(matches!(volumes.use_folder(&name("d"), None, None), Err(VolumeError::IsDisk(_))));
    drop(volumes.use_folder(&name("f"), None, None).unwrap());
    assert!(matches!(volumes.use_disk(&name("f"), None, run), Err(VolumeError::IsFolder(_))));
    let tiny = NewVolume { size: Some(1), ..NewVolume::default() };
    assert!(matches!(volumes.create(tiny), Err(VolumeError::Size(1))));
}

#[test]
fn what_was_to_go_with_a_dead_instance_goes() {
    let (_dir, volumes) = volumes();
    let owner =
        |instance: &str, goes_with_it| Some(Owner { instance: instance.to_owned(), goes_with_it });
    for (volume, owner) in [
        ("a", owner("dead", true)),
        ("b", owner("dead", false)),
        ("c", owner("alive", true)),
        ("d", None),
    ] {
        drop(volumes.use_folder(&name(volume), owner, None).unwrap());
    }
    volumes.sweep(|instance| instance == "alive").unwrap();
    let left: Vec<_> = volumes.list().unwrap().into_iter().map(|it| it.name.to_string()).collect();
    assert_eq!(left, ["b", "c", "d"]);
}

#[test]
fn a_damaged_record_is_told() {
    let (_dir, volumes) = volumes();
    drop(volumes.use_folder(&name("v"), None, None).unwrap());
    let file = volumes.folder(&name("v")).join("volume.json");
    for text in ["", "{}", &fs::read_to_string(&file).unwrap().replace(": 1,", ": 2,")] {
        fs::write(&file, text).unwrap();
        assert!(matches!(volumes.get(&name("v")), Err(VolumeError::Record { .. })), "{text}");
    }
}
