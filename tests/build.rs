//! Builds `list-files` as a static executable: it runs in images that have no libc.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Named, as crt-static for the host's own target would break proc macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    for path in ["list-files", "../Cargo.lock", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let target_dir = PathBuf::from(variable("OUT_DIR")).join("static");
    let status = Command::new(variable("CARGO"))
        .args(["build", "--release", "--package", "isolab-list-files", "--target", TARGET])
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
    assert!(status.success(), "building isolab-list-files failed; its messages are above");
    let program = target_dir.join(TARGET).join("release/isolab-list-files");
    println!("cargo::rustc-env=ISOLAB_LIST_FILES={}", program.display());
}
