//! Builds what runs in images that have no libc, as static executables.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Named, as crt-static for the host's own target would break proc macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    for path in ["file-semantics", "list-files", "../Cargo.lock", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let target_dir = PathBuf::from(variable("OUT_DIR")).join("static");
    let status = Command::new(variable("CARGO"))
        .args(["build", "--release", "--target", TARGET])
        .args(["--package", "isolab-list-files", "--package", "isolab-file-semantics"])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static -C strip=symbols",
        )
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .status()
        .expect("cargo runs, as it runs this");
    assert!(status.success(), "building programs for images failed; the messages are above");
    let folder = target_dir.join(TARGET).join("release");
    for (name, program) in
        [("LIST_FILES", "isolab-list-files"), ("FILE_SEMANTICS", "isolab-file-semantics")]
    {
        println!("cargo::rustc-env=ISOLAB_{name}={}", folder.join(program).display());
    }
}
