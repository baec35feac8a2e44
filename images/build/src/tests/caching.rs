//! What is done once only.

use super::*;

#[test]
fn steps_are_done_once_until_their_inputs_change() {
    let mut bench = Bench::new();
    bench.write("input", "1");
    let dockerfile = "FROM base\nRUN write a 1\nCOPY input /\nRUN write b 2\nRUN remove etc\n";
    let first = bench.build(dockerfile).digest().to_owned();
    assert_eq!(bench.runner.steps.borrow().len(), 3);
    // A new time is no new file.
    bench.write("input", "1");
    let second = bench.build(dockerfile);
    assert_eq!(second.digest(), first);
    assert!(files(&second).stat(Path::new("etc")).unwrap().is_none(), "a whiteout was lost");
    assert_eq!(bench.runner.steps.borrow().len(), 3);
    assert_eq!(bench.log.iter().filter(|line| line.contains("cached")).count(), 4);
    // The step before the change is not done again.
    bench.write("input", "2");
    assert_ne!(bench.build(dockerfile).digest(), first);
    assert_eq!(bench.runner.steps.borrow().len(), 5);
    // Done again for its own sake, the outcome is the same.
    bench.write("input", "1");
    let request = BuildRequest { no_cache: true, ..bench.request() };
    assert_eq!(bench.try_build(dockerfile, request).unwrap().digest(), first);
    assert_eq!(bench.runner.steps.borrow().len(), 8);
}

#[test]
fn the_cache_keeps_its_layers_until_it_is_pruned() {
    let mut bench = Bench::new();
    let dockerfile = "FROM base\nRUN write a 1\n";
    drop(bench.build(dockerfile));
    bench.store.remove("built", false).unwrap();
    bench.store.prune(Prune::default()).unwrap();
    drop(bench.build(dockerfile));
    assert_eq!(bench.runner.steps.borrow().len(), 1, "the layer was collected");
    bench.store.remove("built", false).unwrap();
    bench.store.prune(Prune::ALL).unwrap();
    let left = fs::read_dir(bench.store.root().join("blobs/sha256")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn files_keep_their_times_unless_an_epoch_is_given() {
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, SystemTime};
    let mut bench = Bench::new();
    bench.write("input", "1");
    let set = |seconds: u64| {
        let file = fs::File::open(bench.dir.path().join("input")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    set(1_500_000_000);
    let dockerfile = "FROM base\nCOPY input /\nRUN write made 1\nENV A=b\n";
    let with = |epoch, bench: &Bench| BuildRequest { epoch, ..bench.request() };
    let request = with(None, &bench);
    let kept = bench.try_build(dockerfile, request).unwrap();
    assert_eq!(metadata(&kept, "input").mtime(), 1_500_000_000);
    assert!(metadata(&kept, "made").mtime() > 1_700_000_000);
    assert_ne!(
        bench.store.history("built").unwrap()[0].created.as_deref(),
        Some("1970-01-01T00:00:00Z")
    );
    // Another time is no other file, and what is cached gives the same image.
    let file = fs::File::open(bench.dir.path().join("input")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    let request = with(None, &bench);
    assert_eq!(bench.try_build(dockerfile, request).unwrap().digest(), kept.digest());
    assert_eq!(bench.runner.steps.borrow().len(), 1);
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000)).unwrap();
    let request = with(Some(1_000), &bench);
    let clamped = bench.try_build(dockerfile, request).unwrap();
    let times = ["input", "made"].map(|name| metadata(&clamped, name).mtime());
    assert_eq!(times, [1_000, 1_000]);
    let created = bench.store.history("built").unwrap()[0].created.clone();
    assert_eq!(created.as_deref(), Some("1970-01-01T00:16:40Z"));
}
