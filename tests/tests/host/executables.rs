//! The executables as they are built, and how they stand in for each other.

use std::os::unix::process::ExitStatusExt;

use isolab_command::elsewhere::ELSEWHERE;
use isolab_tests::{Run, Sandbox, checkout, executable, text, tool};

/// What a start waits for: each page that is used is mapped and faulted in.
/// ARCHITECTURE.md has what the bytes are for.
const RUN_PATH_LIMIT: u64 = 4_000_000;
/// The container runtime's, which an engine starts several times for each container.
const OCI_LIMIT: u64 = 3_000_000;

/// What the run path has no use for.
const NOT_FOR_RUNS: [&str; 8] =
    ["hyper", "isolab-bench", "isolab-build", "oci-client", "reqwest", "ring", "rustls", "tokio"];

#[test]
fn all_are_static_without_unwind_tables_and_the_run_path_s_is_small() {
    for name in [
        "isolab",
        "isolab-bench",
        "isolab-compose",
        "isolab-cp",
        "isolab-dns",
        "isolab-image",
        "isolab-init",
        "isolab-instance",
        "isolab-kernel",
        "isolab-manual",
        "isolab-network",
        "isolab-oci",
        "isolab-volume",
    ] {
        let path = executable(name);
        let headers = tool("readelf", &["--file-header", "--program-headers", text(&path)]);
        assert!(headers.contains("EXEC (Executable file)"), "{name}: {headers}");
        assert!(!headers.contains("INTERP") && !headers.contains("DYNAMIC"), "{name}: {headers}");
        let sections = tool("readelf", &["--section-headers", "--wide", text(&path)]);
        assert!(sections.contains(" .text "), "{name}: {sections}");
        // The C library's end of the list is four bytes.
        let tables = sections.lines().filter(|it| it.contains(" .eh_frame "));
        let sizes = tables.filter_map(|it| it.split_whitespace().rev().nth(5));
        assert!(sizes.clone().all(|it| it == "000004"), "{name}: {sections}");
        assert!(!sections.contains(".gcc_except_table"), "{name}: {sections}");
    }
    for (name, limit) in [("isolab", RUN_PATH_LIMIT), ("isolab-oci", OCI_LIMIT)] {
        let size = executable(name).metadata().unwrap().len();
        assert!(size <= limit, "{name}: {size} bytes");
    }
}

/// Linked as the executables are: a panic says what and where, and whoever asks for a backtrace is told that there is none.
#[test]
fn without_unwind_tables_a_panic_tells_its_place_and_backtraces_are_unsupported() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("panics");
    let source = folder.path().join("panics.rs");
    let text_of_source = "
        use isolab_link as _;
        fn overflow(depth: usize) -> usize {
            std::hint::black_box([depth; 512])[1] + overflow(depth + 1)
        }
        fn main() {
            if std::env::args().count() > 1 {
                std::process::exit(overflow(0) as i32);
            }
            let backtrace = std::backtrace::Backtrace::force_capture();
            println!(\"captured:{backtrace}.\");
            std::thread::spawn(|| panic!(\"it {}\", \"must\")).join().unwrap_err();
        }";
    std::fs::write(&source, text_of_source).unwrap();
    let link = checkout().join("link");
    let library = folder.path().join("libisolab_link.rlib");
    let common = ["--edition", "2024", "-C", "panic=abort", "-C", "strip=symbols", "-o"];
    let of_library = [text(&library), "--crate-type", "rlib", "--crate-name", "isolab_link"];
    let (lib, script) = (link.join("src/lib.rs"), link.join("release.ld"));
    tool("rustc", &[&common[..], &of_library, &[text(&lib)]].concat());
    let linked = format!("link-arg=-Wl,-T,{}", text(&script));
    let library = format!("isolab_link={}", text(&library));
    let of_program = [text(&program), "-C", "target-feature=+crt-static", "-C", &linked];
    // Named, so that it is not taken for a proc macro's host.
    let target = ["--target", "x86_64-unknown-linux-gnu"];
    let of_program = [&of_program[..], &target, &["--extern", &library, text(&source)]].concat();
    tool("rustc", &[&common[..], &of_program].concat());
    for backtrace in ["0", "1", "full"] {
        let run = Run::new(std::process::Command::new(&program)).env("RUST_BACKTRACE", backtrace);
        let done = run.finish();
        assert_eq!(done.status.signal(), Some(libc::SIGABRT), "{}", done.stderr);
        assert_eq!(done.stdout, "captured:unsupported backtrace.\n", "{backtrace}");
        assert!(done.stderr.contains("panics.rs:12:35"), "{}", done.stderr);
        assert!(done.stderr.contains("it must"), "{}", done.stderr);
    }
    // The guard page holds without std's message.
    let mut command = std::process::Command::new(&program);
    command.arg("overflow");
    assert_eq!(Run::new(command).finish().status.signal(), Some(libc::SIGSEGV));
    // Every error of ours asks for a backtrace.
    for backtrace in ["0", "1"] {
        let failing = Sandbox::empty().isolab(&["logs", "it"]).env("RUST_BACKTRACE", backtrace);
        failing.finish().fails_with(125, &["isolab: no such instance: `it`"]);
    }
}

#[test]
fn the_run_path_is_built_without_registries_and_builders() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let tree = ["tree", "--offline", "--manifest-path", manifest, "--edges", "normal"];
    let of =
        |package: &str| tool("cargo", &[&tree[..], &["--prefix", "none", "-p", package]].concat());
    let has = |tree: &str, package: &str| {
        tree.lines().any(|line| line.split(' ').next() == Some(package))
    };
    let (own, images) = (of("isolab-cli"), of("isolab-image"));
    for package in NOT_FOR_RUNS {
        assert!(!has(&own, package), "{package}: {own}");
    }
    // The names are right.
    for package in ["oci-client", "rustls", "tokio"] {
        assert!(has(&images, package), "{package}: {images}");
    }
}

#[test]
fn one_help_lists_them_all_and_leads_to_each() {
    let sandbox = Sandbox::empty();
    let help = sandbox.isolab(&["--help"]).finish().success();
    for command in ELSEWHERE.iter().map(|it| it.name) {
        // What the command is said to do here is what it says itself, in as many lines as it takes.
        let lines = help.lines().skip_while(|line| line.split_whitespace().next() != Some(command));
        let more = lines.clone().skip(1).take_while(|line| line.starts_with("       "));
        let lines: Vec<_> = lines.take(1).chain(more).flat_map(str::split_whitespace).collect();
        let about = lines[1..].join(" ");
        assert!(!about.is_empty(), "{command}: {help}");
        for words in [&[command, "--help"][..], &["help", command]] {
            let theirs = sandbox.isolab(words).finish().success();
            let said = theirs.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.starts_with(&about), "{command}: {about}: {theirs}");
            assert!(theirs.contains(&format!("Usage: isolab {command}")), "{theirs}");
        }
    }
    let pull = sandbox.isolab(&["help", "image", "pull"]).finish().success();
    assert!(pull.contains("Usage: isolab image pull"), "{pull}");
    // What looks like an option of ours, or ends options, is theirs.
    let words = ["bench", "startup", "--isolation", "none", "--", "echo", "--version"];
    sandbox.isolab(&words).finish().fails_with(2, &["no isolation level `none`"]);
}

#[test]
fn who_has_but_one_of_them_is_told_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("isolab");
    tool("install", &[text(&executable("isolab")), text(&alone)]);
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(&alone);
        command.args(words).env("PATH", "").env("XDG_DATA_HOME", folder.path().join("data"));
        Run::new(command).finish()
    };
    for words in [["image", "ls"], ["bench", "startup"], ["run", "busybox"]] {
        let missing = if words[0] == "bench" { "`isolab-bench`" } else { "`isolab-image`" };
        run(&words).fails_with(125, &[missing, text(&alone), "same package"]);
    }
    // A kernel is a file here, which nobody looks into before there is an init.
    let (sandbox, file) = (Sandbox::with_busybox(), text(&alone).to_owned());
    for level in ["paravirt", "fullvirt"] {
        let mut command = std::process::Command::new(&alone);
        command.args(["run", "--isolation", level, "--kernel", &file, "busybox", "true"]);
        command.env("PATH", "").env("XDG_DATA_HOME", sandbox.data());
        Run::new(command).finish().fails_with(125, &["`isolab-init`", &file, "same package"]);
    }
    // Where packages put what nobody calls by name, seen from PREFIX/bin.
    let prefix = folder.path().join("prefix");
    let image = prefix.join("libexec/isolab/isolab-image");
    tool("install", &["-D", text(&executable("isolab")), text(&prefix.join("bin/isolab"))]);
    tool("install", &["-D", text(&executable("isolab-image")), text(&image)]);
    let mut list = std::process::Command::new(prefix.join("bin/isolab"));
    list.args(["image", "ls"]).env("PATH", "").env("XDG_DATA_HOME", folder.path().join("data"));
    assert!(Run::new(list).finish().success().starts_with("NAME"));
}

#[test]
fn one_completion_knows_the_commands_of_all() {
    let sandbox = Sandbox::empty();
    for (shell, begins) in [("bash", "_isolab()"), ("zsh", "#compdef isolab"), ("fish", "# ")] {
        let script = sandbox.isolab(&["completions", shell]).finish().success();
        assert!(script.starts_with(begins), "{shell}: {script}");
        let of_others = ["build-arg", "peers", "detach-keys", "no-stream", "no-trunc"];
        for word in ["isolation", "extract-vmlinux"].iter().chain(&of_others) {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    // As a shell does it: after `isolab image pull --pol`, in bash.
    let script = "source <(\"$1\" completions bash); COMP_WORDS=(isolab image pull --pol); \
                  COMP_CWORD=3; _isolab isolab --pol pull; echo \"${COMPREPLY[@]}\"";
    let completed = tool("bash", &["-c", script, "bash", text(&executable("isolab"))]);
    assert_eq!(completed, "--policy\n");
}

#[test]
fn there_is_a_man_page_for_each_command_of_all() {
    let folder = tempfile::tempdir().unwrap();
    tool(text(&executable("isolab-manual")), &["man", text(folder.path())]);
    for command in ELSEWHERE {
        let page = folder.path().join(format!("isolab-{}.1", command.name));
        let text = std::fs::read_to_string(page).unwrap();
        // roff has its own hyphens and quotes.
        let first = command.about.split(['-', '\'']).next().unwrap();
        assert!(text.contains(first), "{command:?}: {text}");
    }
    for (page, word) in [
        ("isolab", "completions"),
        ("isolab-run", "isolation"),
        ("isolab-vm-run", "virtio"),
        ("isolab-cp", "podman"),
        ("isolab-exec", "workdir"),
        ("isolab-system-prune", "kernels"),
        ("isolab-volume-create", "disk"),
        ("isolab-image-build", "Dockerfile"),
        ("isolab-network-create", "subnet"),
        ("isolab-bench-startup", "peers"),
    ] {
        let text = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
        assert!(text.starts_with(".ie") || text.contains(".TH"), "{page}: {text}");
        assert!(text.contains(word), "{page} has no {word}: {text}");
    }
}
