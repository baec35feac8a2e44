//! Builds whose commands a stand-in runs: it writes files as the command says.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::store::Prune;
use crate::testing::{add_image, gzip, layer as archive, new_store};

/// `write NAME TEXT` writes, `remove NAME` leaves a whiteout, `fail` fails; all in shell form.
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
            _ => {}
        }
        Ok(0)
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
            name: Some("built".to_owned()),
            context: self.dir.path().to_owned(),
            dockerfile: None,
            args: HashMap::new(),
            target: None,
            no_cache: false,
            epoch: 0,
            host_network: false,
            insecure: false,
            cert_dir: None,
        }
    }

    fn try_build(&mut self, dockerfile: &str, request: BuildRequest) -> Result<Image, ImageError> {
        self.write("Dockerfile", dockerfile);
        let log = &mut self.log;
        self.store.build(&request, &self.runner, &mut |line| log.push(line.to_owned()))
    }

    fn build(&mut self, dockerfile: &str) -> Image {
        let request = self.request();
        self.try_build(dockerfile, request).unwrap()
    }

    fn fails(&mut self, dockerfile: &str) -> String {
        let request = self.request();
        self.try_build(dockerfile, request).unwrap_err().to_string()
    }

    fn config(&self) -> serde_json::Value {
        self.store.inspect("built").unwrap().config
    }
}

fn files(image: &Image) -> merged::Merged {
    merged::Merged::new(image.layers_unpacked().unwrap())
}

fn read(image: &Image, name: &str) -> String {
    files(image).read_text(name).unwrap()
}

fn metadata(image: &Image, name: &str) -> fs::Metadata {
    files(image).stat(Path::new(name)).unwrap().unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn the_configuration_is_what_the_instructions_say() {
    let mut bench = Bench::new();
    let image = bench.build(
        r#"
ARG VERSION=1.0
FROM base AS one
ARG VERSION
ENV A=1 B="two words" C=$A-${VERSION}
ENV OLD style value
LABEL team=web "note"='$A stays'
EXPOSE 80 8000-8001/udp
VOLUME /data /logs
USER web
WORKDIR /srv
WORKDIR app
STOPSIGNAL SIGINT
SHELL ["/bin/ash", "-e", "-c"]
HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost \
  # why
  || exit 1
ENTRYPOINT ["/bin/app", "--flag"]
CMD run this
"#,
    );
    let config = bench.config();
    let expected = serde_json::json!({
        "Env": ["A=1", "B=two words", "C=-1.0", "OLD=style value"],
        "Labels": {"team": "web", "note": "$A stays"},
        "ExposedPorts": {"80/tcp": {}, "8000/udp": {}, "8001/udp": {}},
        "Volumes": {"/data": {}, "/logs": {}},
        "User": "web", "WorkingDir": "/srv/app", "StopSignal": "SIGINT",
        "Shell": ["/bin/ash", "-e", "-c"],
        "Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost   || exit 1"],
                        "Interval": 90_000_000_000u64, "Retries": 3},
        "Entrypoint": ["/bin/app", "--flag"],
        "Cmd": ["/bin/ash", "-e", "-c", "run this"],
    });
    // Variables of one instruction do not see each other.
    assert_eq!(config, expected);
    // WORKDIR made the folder.
    assert!(metadata(&image, "srv/app").is_dir());
    let history = bench.store.history("built").unwrap();
    assert_eq!(history[0].created_by.as_deref(), Some("CMD run this"));
    assert_eq!(history[0].created.as_deref(), Some("1970-01-01T00:00:00Z"));
}

#[test]
fn an_entrypoint_takes_the_base_images_command_away() {
    let mut bench = Bench::new();
    bench.build("FROM base\nENTRYPOINT [\"x\"]");
    assert!(bench.config().get("Cmd").is_none());
    bench.build("FROM base\nCMD [\"y\"]\nENTRYPOINT [\"x\"]");
    assert_eq!(bench.config()["Cmd"][0], "y");
}

#[test]
fn copy_takes_files_folders_and_patterns() {
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
fn stages_build_on_each_other_and_what_nobody_needs_is_not_built() {
    let mut bench = Bench::new();
    bench.write("src", "source");
    let image = bench.build(
        "FROM base AS builder\nRUN write out/program v1\nFROM base AS unneeded\nRUN fail\n\
         FROM builder AS tests\nRUN write tested yes\n\
         FROM scratch\nCOPY --from=builder /out/program /bin/\nCOPY --from=2 tested /\n\
         COPY --from=base /etc/passwd /etc/\nCOPY src /\n",
    );
    assert_eq!(read(&image, "bin/program"), "v1");
    assert_eq!(read(&image, "tested"), "yes");
    assert!(read(&image, "etc/passwd").starts_with("root"));
    assert!(files(&image).stat(Path::new("out")).unwrap().is_none());
    let request = BuildRequest { target: Some("BUILDER".to_owned()), ..bench.request() };
    let target = bench.try_build("FROM base AS builder\nRUN write x y\nFROM scratch\n", request);
    assert_eq!(read(&target.unwrap(), "x"), "y");
}

#[test]
fn a_step_is_run_with_the_settings_so_far() {
    let mut bench = Bench::new();
    let request = BuildRequest {
        args: HashMap::from([("VERSION".to_owned(), "9".to_owned())]),
        ..bench.request()
    };
    let dockerfile = "FROM base\nARG VERSION=1\nARG UNSET\nARG TARGETARCH\nENV A=b\n\
        USER web:web\nWORKDIR /w\nRUN one \\\n # comment\n two\nRUN [\"exec\", \"form $A\"]\n\
        SHELL [\"/bin/bash\", \"-c\"]\nRUN <<EOF\nthree\nfour\nEOF\n";
    bench.try_build(dockerfile, request).unwrap();
    let steps = bench.runner.steps.borrow();
    assert_eq!(steps[0].args, ["/bin/sh", "-c", "one  two"]);
    let path = format!("PATH={}", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    assert_eq!(steps[0].env, ["A=b", "TARGETARCH=amd64", "VERSION=9", &path]);
    assert_eq!((steps[0].cwd.as_str(), steps[0].user.as_str()), ("/w", "web:web"));
    assert_eq!(steps[1].args, ["exec", "form $A"]);
    assert_eq!(steps[2].args, ["/bin/bash", "-c", "three\nfour\n"]);
}

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
fn add_unpacks_archives_of_every_form_and_copy_does_not() {
    let mut bench = Bench::new();
    let plain = archive(&[("inner/file", "content")]);
    fs::write(bench.dir.path().join("plain.tar"), &plain).unwrap();
    fs::write(bench.dir.path().join("packed.tgz"), gzip(&plain)).unwrap();
    bench.write("text.gz", "no archive");
    let image = bench.build(
        "FROM base\nADD plain.tar /p\nADD packed.tgz /g/\nADD text.gz /t/\nCOPY plain.tar /c/\n",
    );
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
fn a_here_document_is_a_script() {
    let mut bench = Bench::new();
    bench.build("FROM base\nRUN <<END\none '<<x'\ntwo\nEND\nRUN [\"a\", \"<<b\"]\nRUN cat <<<c\n");
    let steps = bench.runner.steps.borrow();
    assert_eq!(steps[0].args, ["/bin/sh", "-c", "one '<<x'\ntwo\n"]);
    assert_eq!(steps[1].args, ["a", "<<b"]);
    assert_eq!(steps[2].args, ["/bin/sh", "-c", "cat <<<c"]);
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
fn what_fails_is_told_with_its_place() {
    let mut bench = Bench::new();
    bench.write("a", "a").write("b", "b").write("dir/x", "x");
    for (dockerfile, words) in [
        ("FROM base\n\nRUN fail\n", ["Dockerfile:3", "exit code 3"]),
        ("FROM base\nCOPY none /\n", ["Dockerfile:2", "no `none`"]),
        ("FROM base\nCOPY a b /file\n", ["COPY a b /file", "end its name with `/`"]),
        ("FROM base\nCOPY dir /etc/passwd\n", ["Dockerfile:2", "/etc/passwd is no folder"]),
        ("FROM base\nCOPY a /etc/passwd/x\n", ["Dockerfile:2", "no folder"]),
        ("FROM base\nCOPY --chown=nobody a /\n", ["--chown", "no user `nobody`"]),
        ("FROM base\nCOPY --chmod=rwx a /\n", ["--chmod", "octal"]),
        ("FROM base\nCOPY --parents a /\n", ["--parents", "unknown option"]),
        ("FROM base\nRUN --mount=type=cache,target=/x true\n", ["--mount", "not supported"]),
        ("FROM base\nADD https://example.com/x /\n", ["ADD of a URL", "before the build"]),
        ("FROM base\nEXPOSE 99999\n", ["EXPOSE", "no port"]),
        ("FROM base\nADD git@example.com:a/b.git /\n", ["ADD of a repository", "before the"]),
        ("FROM base\nADD --checksum=sha256:0 a /\n", ["Dockerfile:2", "--checksum"]),
        ("FROM base\nONBUILD RUN true\n", ["ONBUILD", "not supported"]),
        ("FROM base\nRUN <<A cat >/a\na\nA\n", ["Dockerfile:2", "here-document beside"]),
        ("FROM base\nRUN cat <<A >/a\nUSER 1\n#A\n", ["Dockerfile:2", "here-document beside"]),
        ("FROM base\nRUN <<A\n#!/bin/cat\nA\n", ["Dockerfile:2", "interpreter"]),
        ("FROM base\nRUN cat <<A\nnone\nA\n", ["Dockerfile", "line 3"]),
        ("FROM base\nCOPY <<A /x\nno end\n", ["here-document", "line 4"]),
        ("FROM --platform=linux/arm64 base\n", ["linux/arm64", "cannot be built"]),
        ("FROM base\nENV A=${B\n", ["Dockerfile:2", "ENV"]),
        ("FROM base\nHEALTHCHECK --interval=soon CMD x\n", ["soon", "duration"]),
        ("RUN true\n", ["Dockerfile", "FROM"]),
        ("", ["Dockerfile", ""]),
    ] {
        let error = bench.fails(dockerfile);
        assert!(words.iter().all(|word| error.contains(word)), "{dockerfile}: {error}");
    }
    let left = fs::read_dir(bench.store.root().join("partial")).unwrap().count();
    assert_eq!(left, 0, "something was left behind");
    let request = BuildRequest { target: Some("none".to_owned()), ..bench.request() };
    assert!(bench.try_build("FROM base\n", request).unwrap_err().to_string().contains("`none`"));
}
