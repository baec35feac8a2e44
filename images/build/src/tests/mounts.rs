//! RUN --mount.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn files_of_context_stages_and_images_are_mounted_as_copies() {
    let mut bench = Bench::new();
    bench.write("a", "of the context").write("d/b", "deep").write("d/no", "").write("secret", "s");
    bench.write(".dockerignore", "secret\n**/no\n");
    let image = bench.build(
        "FROM base AS other\nRUN write out/x v1\nFROM base\nWORKDIR /w\n\
         RUN --mount=source=a,target=a keep /w/a one\n\
         RUN --mount=type=bind,from=other,source=/out/x,target=/t keep /t two\n\
         RUN --mount=from=base,source=etc/passwd,target=/t keep /t three\n\
         RUN --mount=target=.,rw put /w d/new text\nRUN --mount=target=/t,source=d look\n",
    );
    assert_eq!((read(&image, "one"), read(&image, "two")), ("of the context".into(), "v1".into()));
    assert!(read(&image, "three").starts_with("root"));
    assert!(!bench.dir.path().join("d/new").exists(), "the command wrote into the context");
    let steps = bench.runner.steps.borrow();
    let read_only: Vec<bool> = steps
        .iter()
        .flat_map(|step| &step.mounts)
        .map(|mount| matches!(mount.what, Mounted::Path { read_only: true, .. }))
        .collect();
    assert_eq!(read_only, [true, true, true, false, true]);
    drop(steps);
    for (option, word) in [("source=secret,target=/x", "secret"), ("source=none,target=/x", "none")]
    {
        let error = bench.fails(&format!("FROM base\nRUN --mount={option} true\n"));
        assert!(error.contains(&format!("no `{word}` to mount")), "{error}");
    }
}

#[test]
fn a_mount_s_source_never_leaves_its_root() {
    let mut bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("key"), "secret").unwrap();
    symlink(outside.path(), bench.dir.path().join("link")).unwrap();
    symlink("/etc/hostname", bench.dir.path().join("absolute")).unwrap();
    for source in ["../key", "link/key", "link", "absolute", "/etc/hostname", "link/../key"] {
        let error = bench.fails(&format!("FROM base\nRUN --mount=source={source},target=/x a\n"));
        assert!(error.contains("Dockerfile:2: RUN"), "{source}: {error}");
    }
    // A link inside of a folder is the container's to follow, in its own root.
    bench.write("d/file", "");
    symlink(outside.path().join("key"), bench.dir.path().join("d/link")).unwrap();
    bench.build("FROM base\nRUN --mount=source=d,target=/x,rw put /x new text\n");
}

#[test]
fn what_is_mounted_counts_for_the_cache_but_not_what_a_cache_holds() {
    let mut bench = Bench::new();
    bench.write("a", "1").write("unused", "1");
    let dockerfile = "FROM base\nRUN --mount=source=a,target=/a keep /a seen\n\
                      RUN --mount=type=cache,target=/c put /c file text\n\
                      RUN --mount=type=cache,target=/c keep-nothing\n";
    bench.build(dockerfile);
    bench.write("unused", "2");
    bench.build(dockerfile);
    assert_eq!(bench.runner.steps.borrow().len(), 3);
    bench.write("a", "2");
    assert_eq!(read(&bench.build(dockerfile), "seen"), "2");
    assert_eq!(bench.runner.steps.borrow().len(), 6);
}

#[test]
fn as_root_caches_stay_until_they_are_pruned_and_are_shared_by_id() {
    let mut bench = Bench::new();
    bench.write("seed/file", "seed");
    let run = |mount: &str, command: &str| {
        format!("FROM base\nRUN --mount=type=cache,{mount} {command}\n")
    };
    bench.build(&run("id=x,target=/c,mode=0700,uid=5,gid=6", "put /c file first"));
    let image = bench.build(&run("id=x,target=/elsewhere", "sh; keep"));
    assert!(files(&image).stat(Path::new("c")).unwrap().is_none());
    let folder = mounted(bench.runner.steps.borrow().last().unwrap(), "/elsewhere");
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "first");
    let found = fs::metadata(&folder).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.uid(), found.gid()), (0o700, 5, 6));
    assert!(folder.starts_with(bench.store.root().join("build-cache")));
    // No id is a path.
    bench.build(&run("id=../../../../tmp/evil,target=/c", "put /c file x"));
    let evil = mounted(bench.runner.steps.borrow().last().unwrap(), "/c");
    assert_eq!(evil.parent(), folder.parent());
    bench.build(
        "FROM scratch AS s\nCOPY seed /s\nFROM base\n\
         RUN --mount=type=cache,id=y,target=/c,from=s,source=/s look\n",
    );
    let seeded = mounted(bench.runner.steps.borrow().last().unwrap(), "/c");
    assert_eq!(fs::read_to_string(seeded.join("file")).unwrap(), "seed");
    // The same cache twice, for one command alone: it does not wait for itself.
    let twice = "id=z,target=/a,sharing=locked --mount=type=cache,id=z,target=/b,sharing=locked";
    bench.build(&run(twice, "put /a file text"));
    let other = mounted(bench.runner.steps.borrow().last().unwrap(), "/b");
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "text");
    bench.store.prune(Prune::default()).unwrap();
    assert!(folder.is_dir());
    bench.store.remove("built", false).unwrap();
    bench.store.prune(Prune::ALL).unwrap();
    assert!(!folder.exists());
}

#[test]
fn secrets_leave_no_trace() {
    let mut bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("token");
    fs::write(&file, "hunter2-secret").unwrap();
    let secrets = HashMap::from([("token".to_owned(), Secret::File(file.clone()))]);
    let request = |bench: &Bench| BuildRequest { secrets: secrets.clone(), ..bench.request() };
    let dockerfile = "FROM base\n\
        RUN --mount=type=secret,id=token,mode=0440,uid=7 --mount=type=secret,id=token,env=TOKEN look\n\
        RUN --mount=type=secret,id=unknown other\n";
    let wanted = request(&bench);
    bench.try_build(dockerfile, wanted).unwrap();
    let steps = bench.runner.steps.borrow();
    assert!(steps[0].env.contains(&"TOKEN=hunter2-secret".to_owned()));
    let [StepMount { target, what: Mounted::Path { source, read_only } }] = &steps[0].mounts[..]
    else {
        panic!("{:?}", steps[0].mounts)
    };
    assert_eq!((target.as_str(), *read_only), ("/run/secrets/token", true));
    assert!(!source.exists(), "the copy outlived its step");
    assert!(steps[1].mounts.is_empty());
    drop(steps);
    // Nowhere in the store: not in layers, configuration, history or the cache's entries.
    let grep = std::process::Command::new("grep")
        .args(["-r", "-l", "hunter2-secret"])
        .arg(bench.store.root())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
    // Another secret is no other step.
    fs::write(&file, "another").unwrap();
    let wanted = request(&bench);
    bench.try_build(dockerfile, wanted).unwrap();
    assert_eq!(bench.runner.steps.borrow().len(), 2);
    let error = bench.fails("FROM base\nRUN --mount=type=secret,id=k,required=true x\n");
    assert!(error.contains("`k` is required"), "{error}");
}
