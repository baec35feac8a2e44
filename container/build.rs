//! Builds the trampoline as a static executable, which the library embeds.
//!
//! rustc alone does it: for this host's own target, whose `core` is there, and without a libc, which it does not need.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    for path in ["trampoline", "src/wire.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let trampoline = PathBuf::from(variable("OUT_DIR")).join("trampoline");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--crate-name", "trampoline", "--crate-type", "bin", "--edition", "2024"])
        .args(["--target", &variable("TARGET"), "-C", "panic=abort", "-C", "opt-level=s"])
        // At a fixed address, one segment of one page: nothing to relocate, little to map.
        .args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"])
        .args(["-C", "strip=symbols", "-C", "force-unwind-tables=no"])
        .args(["-C", "link-args=-nostartfiles -nostdlib -static -no-pie"])
        .args(["-C", "link-args=-Wl,--build-id=none,-z,norelro,-z,noseparate-code"]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let status = rustc.arg("-o").arg(&trampoline).arg("trampoline/main.rs").status();
    let status = status.expect("rustc runs, as it compiled this");
    assert!(status.success(), "building the trampoline failed; its messages are above");
    println!("cargo::rustc-env=ISOLAB_TRAMPOLINE={}", trampoline.display());
}
