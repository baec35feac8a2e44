//! What fails.

use super::*;

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
        ("FROM base\nEXPOSE 99999\n", ["EXPOSE", "no port"]),
        ("FROM base\nADD git@example.com:a/b.git /\n", ["ADD of a repository", "before the"]),
        ("FROM base\nADD --checksum=sha256:0 a /\n", ["Dockerfile:2", "--checksum"]),
        ("FROM base\nCOPY --chmod=rwx a /\n", ["--chmod", "u+x,go-w"]),
        ("FROM base\nCOPY --chown=4294967295 a /\n", ["Dockerfile:2", "4294967294"]),
        ("FROM base\nCOPY --colour a /\n", ["--colour", "unknown option"]),
        ("FROM base\nRUN --mount=type=ssh true\n", ["--mount", "ssh"]),
        ("FROM base\nRUN --security=insecure true\n", ["--security", "not supported"]),
        ("FROM base\nCOPY <<A /x\nno end\n", ["here-document", "line 2"]),
        ("FROM base\nUSER nobody\nWORKDIR /new\n", ["Dockerfile:3", "no user `nobody`"]),
        ("FROM base\nADD git://example.com/a /\n", ["ADD of a repository", "before the"]),
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

/// Says that the build is to end as soon as its step was run.
struct Interrupted(StandIn);

impl BuildRunner for Interrupted {
    fn run(&self, step: &BuildStep) -> Result<i32, String> {
        self.0.run(step)
    }

    fn is_interrupted(&self) -> bool {
        !self.0.steps.borrow().is_empty()
    }
}

#[test]
fn an_interrupted_build_leaves_nothing_and_names_no_image() {
    let bench = Bench::new();
    bench.write("Dockerfile", "FROM base\nRUN write a 1\nRUN write b 2\n");
    let runner = Interrupted(StandIn::default());
    let error = build(&bench.store, &bench.request(), &runner, &mut |_| {}).unwrap_err();
    assert!(Report::new(error).to_string().contains("interrupted"));
    assert_eq!(runner.0.steps.borrow().len(), 1);
    assert_eq!(fs::read_dir(bench.store.root().join("partial")).unwrap().count(), 0);
    assert!(bench.store.inspect("built").is_err());
}
