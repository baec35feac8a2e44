//! The build script of every package with an executable: release builds are linked without unwind tables.

use std::env;
use std::path::PathBuf;

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let scripts = package.ancestors().map(|folder| folder.join("link/release.ld"));
    let script = scripts.into_iter().find(|it| it.exists()).expect("it is the workspace's");
    println!("cargo::rerun-if-changed={}", script.display());
    if env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
}
