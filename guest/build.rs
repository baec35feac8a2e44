//! Builds init as a static executable, which the library embeds: guests have no libc of ours.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// crt-static for the host's own target would break proc macros, which is why the target is named
/// and the build is one of its own.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    for path in ["init", "protocol", "../Cargo.lock", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let target_dir = PathBuf::from(variable("OUT_DIR")).join("init");
    let status = Command::new(variable("CARGO"))
        .args(["build", "--release", "--package", "isolab-init", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        // Of the outer build's flags none is meant for the guest; coverage flags would even need
        // a runtime that it lacks.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols")
        // Small, as every guest unpacks it at every start.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .status()
        .expect("cargo runs, as it runs this");
    assert!(status.success(), "building isolab-init failed; its messages are above");
    let init = target_dir.join(TARGET).join("release/isolab-init");
    println!("cargo::rustc-env=ISOLAB_INIT={}", init.display());
}
