//! COPY, ADD and WORKDIR.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn as_root_copy_takes_files_folders_and_patterns() {
    let mut bench = Bench::new();
    bench.write("a.txt", "a").write("b.txt", "b").write("c.rs", "c").write("dir/sub/d", "d");
    bench.write("skip.log", "").write("dir/skip.log", "").write(".dockerignore", "**/*.log\n");
    fs::set_permissions(bench.dir.path().join("a.txt"), fs::Permissions::from_mode(0o4711))
        .unwrap();
    symlink("d", bench.dir.path().join("dir/sub/link")).unwrap();
    let image = bench.build(
        "FROM base\nWORKDIR /w\nCOPY a.txt renamed\nCOPY *.txt folder/\nCOPY dir .\n\
         COPY --chown=web --chmod=640 [\"c.rs\", \"/opt/\"]\nCOPY --chown=5:6 dir/sub /own\n",
    );
    assert_eq!(read(&image, "w/renamed"), "a");
    assert_eq!(read(&image, "w/folder/b.txt"), "b");
    assert_eq!(read(&image, "w/sub/d"), "d");
    assert_eq!(metadata(&image, "w/renamed").mode() & 0o7777, 0o4711);
    assert_eq!(metadata(&image, "w/renamed").uid(), 0);
    let chowned = metadata(&image, "opt/c.rs");
    assert_eq!((chowned.uid(), chowned.gid(), chowned.mode() & 0o7777), (33, 34, 0o640));
    assert_eq!((metadata(&image, "own").uid(), metadata(&image, "own/d").gid()), (5, 6));
    assert!(metadata(&image, "own/link").is_symlink());
    assert!(files(&image).stat(Path::new("w/skip.log")).unwrap().is_none());
    assert_eq!(metadata(&image, "w/renamed").mtime(), 0, "the time was not clamped");
}

#[test]
fn a_link_of_the_image_leads_where_it_should_and_stays_one() {
    let mut bench = Bench::new();
    bench.write("lib/new", "new").write("file", "file");
    // usr-merge, as Debian has it.
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o1777);
    header.set_size(0);
    for name in ["usr", "usr/lib", "tmp"] {
        layer.append_data(&mut header, name, std::io::empty()).unwrap();
    }
    header.set_entry_type(tar::EntryType::Symlink);
    layer.append_link(&mut header, "lib", "usr/lib").unwrap();
    layer.append_link(&mut header, "out", "/../../../../tmp").unwrap();
    drop(add_image(&bench.store, Some("merged"), &[layer.into_inner().unwrap()]));
    let image = bench.build("FROM merged\nCOPY lib /lib\nCOPY . /\nCOPY file /out/x\n");
    assert!(metadata(&image, "lib").is_symlink());
    assert_eq!(read(&image, "usr/lib/new"), "new");
    assert_eq!(read(&image, "tmp/x"), "file");
    assert_eq!(metadata(&image, "tmp").mode() & 0o7777, 0o1777, "a folder's mode was lost");
}

#[test]
fn add_unpacks_archives_of_every_form_and_copy_does_not() {
    let mut bench = Bench::new();
    let plain = archive(&[("inner/file", "content")]);
    fs::write(bench.dir.path().join("plain.tar"), &plain).unwrap();
    fs::write(bench.dir.path().join("packed.tgz"), gzip(&plain)).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut bzip2, &plain).unwrap();
    fs::write(bench.dir.path().join("packed.bin"), bzip2.finish().unwrap()).unwrap();
    // Unix version 7's form has no magic.
    let mut header = tar::Header::new_old();
    header.set_size(2);
    header.set_mode(0o644);
    let mut old = tar::Builder::new(Vec::new());
    old.append_data(&mut header, "old", &b"v7"[..]).unwrap();
    fs::write(bench.dir.path().join("old"), old.into_inner().unwrap()).unwrap();
    bench.write("text.gz", "no archive").write("text.tar", &"x".repeat(1024));
    let image = bench.build(
        "FROM base\nADD plain.tar /p\nADD packed.tgz /g/\nADD text.gz text.tar /t/\n\
         COPY plain.tar /c/\nADD packed.bin /b/\nADD old /o/\nADD --unpack=false old /u/\n",
    );
    assert_eq!(read(&image, "b/inner/file"), "content");
    assert_eq!((read(&image, "o/old").as_str(), read(&image, "t/text.tar").len()), ("v7", 1024));
    assert!(metadata(&image, "u/old").len() > 2);
    assert_eq!(read(&image, "p/inner/file"), "content");
    assert_eq!(read(&image, "g/inner/file"), "content");
    assert_eq!(read(&image, "t/text.gz"), "no archive");
    assert!(metadata(&image, "c/plain.tar").is_file());
}

#[test]
fn here_documents_are_files() {
    let mut bench = Bench::new();
    let image = bench.build(
        "FROM base\nARG V=1\nCOPY <<EOF /etc/conf\nversion=$V \"quoted\"\nEOF\n\
         COPY <<'EOF' /etc/raw\n$V\nEOF\n",
    );
    assert_eq!(read(&image, "etc/conf"), "version=1 \"quoted\"\n");
    assert_eq!(read(&image, "etc/raw"), "$V\n");
}

#[test]
fn nothing_outside_the_context_is_reached() {
    let mut bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), bench.dir.path().join("link")).unwrap();
    symlink("/etc/hostname", bench.dir.path().join("absolute")).unwrap();
    for source in ["../secret", "link/secret", "absolute", "/etc/hostname", "link/*"] {
        let error = bench.fails(&format!("FROM base\nCOPY {source} /x\n"));
        assert!(error.contains("Dockerfile:2: COPY"), "{source}: {error}");
    }
}

#[test]
fn as_root_here_documents_go_into_folders_under_their_names() {
    let mut bench = Bench::new();
    bench.write("plain", "plain");
    let image = bench.build(
        "FROM base\nCOPY --chmod=600 --chown=web <<a.txt <<-'b.txt' plain /d/\none\na.txt\n\ttwo\n\
         \tb.txt\nCOPY <<passwd /etc/\nnew\npasswd\n",
    );
    assert_eq!(read(&image, "d/a.txt"), "one\n");
    assert_eq!(read(&image, "d/b.txt"), "two\n");
    assert_eq!(read(&image, "d/plain"), "plain");
    assert_eq!(read(&image, "etc/passwd"), "new\n");
    let found = metadata(&image, "d/a.txt");
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o600, 33, 34));
}

#[test]
fn modes_may_be_symbolic() {
    let mut bench = Bench::new();
    bench.write("dir/file", "").write("dir/sub/tool", "");
    let mode = |name: &str, mode| {
        let path = bench.dir.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("dir/file", 0o664);
    mode("dir/sub/tool", 0o700);
    let image = bench.build("FROM base\nCOPY --chmod=u+s,go=rX dir /x/\n");
    let mode = |name: &str| metadata(&image, name).mode() & 0o7777;
    assert_eq!((mode("x/file"), mode("x/sub/tool"), mode("x/sub")), (0o4644, 0o4755, 0o4755));
}

#[test]
fn what_is_excluded_is_left_out() {
    let mut bench = Bench::new();
    for name in ["d/a.txt", "d/b.md", "d/sub/c.txt", "d/sub/e.md", "top.txt", "top.md"] {
        bench.write(name, name);
    }
    for (line, expected, missing) in [
        ("--exclude=*.txt d /o/", &["o/b.md", "o/sub/c.txt"][..], &["o/a.txt"][..]),
        ("--exclude=**/*.txt d /o/", &["o/b.md", "o/sub/e.md"], &["o/a.txt", "o/sub/c.txt"]),
        ("--exclude=sub --exclude=*.md d /o/", &["o/a.txt"], &["o/b.md", "o/sub"]),
        ("--exclude=*.txt top* /o/", &["o/top.md"], &["o/top.txt"]),
        ("--parents --exclude=d/sub d top.md /o/", &["o/d/a.txt", "o/top.md"], &["o/d/sub"]),
    ] {
        let image = bench.build(&format!("FROM base\nCOPY {line}\n"));
        let exists = |name: &str| files(&image).stat(Path::new(name)).unwrap().is_some();
        assert!(expected.iter().all(|name| exists(name)), "{line}");
        assert!(!missing.iter().any(|name| exists(name)), "{line}");
    }
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let mut bench = Bench::new();
    for name in ["x/a.txt", "x/y/b.txt", "z/a.txt", "z/deep/c/d.txt"] {
        bench.write(name, name);
    }
    let private = bench.dir.path().join("z/deep");
    fs::set_permissions(private, fs::Permissions::from_mode(0o700)).unwrap();
    for (line, expected) in [
        ("x/a.txt z/a.txt /o", &["o/x/a.txt", "o/z/a.txt"][..]),
        ("./x/**/*.txt /o/", &["o/x/a.txt", "o/x/y/b.txt"]),
        ("z/./deep/c/d.txt /o", &["o/deep/c/d.txt"]),
        ("z/./deep /o", &["o/deep/c/d.txt"]),
        ("x/./*.txt z/./*.txt /o", &["o/a.txt"]),
    ] {
        let image = bench.build(&format!("FROM base\nCOPY --parents {line}\n"));
        for name in expected {
            assert!(files(&image).stat(Path::new(name)).unwrap().is_some(), "{line}: {name}");
        }
    }
    let image = bench.build("FROM base\nCOPY --parents z/deep/c/d.txt /o\n");
    assert_eq!(metadata(&image, "o/z/deep").mode() & 0o7777, 0o700);
}

#[test]
fn as_root_a_working_folder_belongs_to_the_user_in_force() {
    let mut bench = Bench::new();
    let image =
        bench.build("FROM base\nUSER web\nWORKDIR /a/b\nUSER 5:6\nWORKDIR c\nWORKDIR /etc\n");
    let owner = |name: &str| (metadata(&image, name).uid(), metadata(&image, name).gid());
    assert_eq!((owner("a"), owner("a/b"), owner("a/b/c")), ((33, 34), (33, 34), (5, 6)));
    assert_eq!(owner("etc"), (0, 0));
}

#[test]
fn ignored_files_are_named_as_docker_names_them() {
    let mut bench = Bench::new();
    bench.write("{a,b}.c", "").write("a.c", "").write("d/x.pyc", "").write("d/x.py", "");
    bench.write(".dockerignore", "{a,b}.c\n**.pyc\n");
    let image = bench.build("FROM base\nCOPY . /o/\n");
    let exists = |name: &str| files(&image).stat(Path::new(name)).unwrap().is_some();
    assert!(exists("o/a.c") && exists("o/d/x.py"));
    assert!(!exists("o/{a,b}.c") && !exists("o/d/x.pyc"));
    bench.write(".containerignore", "a.c\n");
    let image = bench.build("FROM base\nCOPY . /o/\n");
    assert!(files(&image).stat(Path::new("o/a.c")).unwrap().is_none());
}
