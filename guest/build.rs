//! Builds init as a static executable, since guests have no libc of ours, and packs it into an
//! archive, which the library embeds: a start then copies it once, into the guest's RAM.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

#[path = "src/archive.rs"]
mod archive;

/// crt-static for the host's own target would break proc macros, which is why the target is named
/// and the build is one of its own.
const TARGET: &str = "x86_64-unknown-linux-gnu";

const RUSTFLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static -C strip=symbols";

/// Where init is in the archive.
const INIT_PATH: &str = "/.isolab/init";

fn main() {
    for path in ["init", "protocol", "src/archive.rs", "../Cargo.lock", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let target_dir = out_dir.join("init");
    let status = Command::new(variable("CARGO"))
        .args(["build", "--release", "--package", "isolab-init", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        // Of the outer build's flags none is meant for the guest; coverage flags would even need
        // a runtime that it lacks.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // No relocations, which would be done again at every start.
        .env("RUSTFLAGS", RUSTFLAGS)
        // Small, as every guest unpacks it at every start.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .status()
        .expect("cargo runs, as it runs this");
    assert!(status.success(), "building isolab-init failed; its messages are above");
    let init = target_dir.join(TARGET).join("release/isolab-init");
    let packed = out_dir.join("init.cpio");
    fs::read(init).and_then(|init| fs::write(&packed, pack(&init)?)).expect("OUT_DIR is ours");
    println!("cargo::rustc-env=ISOLAB_INIT_PATH={INIT_PATH}");
    println!("cargo::rustc-env=ISOLAB_INIT_ARCHIVE={}", packed.display());
}

fn pack(init: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = archive::Archive::new();
    archive.file(INIT_PATH, 0o755, init)?;
    archive.finish()
}
