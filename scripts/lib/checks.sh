# shellcheck shell=bash
# What is checked without running any of the code: style, lints, documentation, dependencies. Included by
# scripts/test, whose `step` and `leave_out` it uses.

# Kept in the cache, where it is built once: two to four minutes on two cores.
CARGO_DENY_VERSION=0.20.2

check_style_and_lints() {
    step "formatting" cargo fmt --all --check
    if command -v shellcheck >/dev/null; then
        local shell_scripts
        mapfile -t shell_scripts < <(grep -rlE '^#(!.*sh|( shellcheck shell=.*))$' scripts .ci)
        step "lints of the scripts" shellcheck -x "${shell_scripts[@]}"
    else
        leave_out "lints of the scripts: there is no shellcheck"
    fi
    step "unit tests of the scripts" python3 -B -m unittest discover -q -s scripts/lib
    # With clippy::incompatible_msrv, which knows since when each part of std is there.
    step "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
    # All targets are those that `cargo test` runs; the rest is named here.
    step "lints of the tests that need KVM" cargo clippy -p isolab-tests --test '*' --quiet -- -D warnings
}

check_documentation() {
    RUSTDOCFLAGS="-D warnings" step "documentation" cargo doc --workspace --no-deps --document-private-items --quiet
}

# No package may want a newer Rust than we promise: cargo says so only when it is run by an old one.
check_rust_version() {
    local newer
    newer=$(cargo metadata --quiet --format-version 1 --locked | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
number = lambda version: tuple(map(int, (version.split(".") + ["0"])[:2]))
ours = next(p["rust_version"] for p in packages if p["name"] == "isolab-vmm")
for p in packages:
    if number(p["rust_version"] or "1.0") > number(ours):
        print(p["name"], p["version"], "needs Rust", p["rust_version"], "and Cargo.toml says", ours)')
    [ -z "$newer" ] || die "$newer"
}

# The compiler of that version, where rustup has it: lints do not know which functions were unsafe then.
OLDEST_RUST=$(sed -n 's/^rust-version = "\(.*\)"$/\1.0/p' "$(dirname "${BASH_SOURCE[0]}")/../../Cargo.toml")

check_with_oldest_rust() {
    rustup run "$OLDEST_RUST" cargo --version >/dev/null 2>&1 || return 0
    step "Rust $OLDEST_RUST" rustup run "$OLDEST_RUST" cargo check --workspace --quiet --target-dir target/oldest-rust
}

leave_out_oldest_rust() {
    rustup run "$OLDEST_RUST" cargo --version >/dev/null 2>&1 ||
        leave_out "the build with Rust $OLDEST_RUST: rustup toolchain install $OLDEST_RUST"
}

# The program that `cargo deny` is, if it is in the cache or on PATH.
find_cargo_deny() {
    local cached
    cached=$(isolab_cache)/tools/cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny
    if [ -x "$cached" ]; then
        printf '%s\n' "$cached"
    else
        command -v cargo-deny
    fi
}

# Without link-time optimisation, which takes longer than all else of it; from elsewhere, because .cargo/config.toml
# is about our own executables.
install_cargo_deny() {
    find_cargo_deny >/dev/null || (
        cd /
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
            cargo install --quiet --locked cargo-deny --version "$CARGO_DENY_VERSION" --no-track \
            --root "$(isolab_cache)/tools/cargo-deny-$CARGO_DENY_VERSION"
    )
}

# Licences, duplicates and sources (deny.toml), and known vulnerabilities where their database can be had.
check_dependencies() {
    local cargo_deny
    if ! cargo_deny=$(find_cargo_deny); then
        leave_out "licences, duplicates and sources of dependencies: there is no cargo-deny (scripts/test all builds one)"
        return
    fi
    step "dependencies" "$cargo_deny" --log-level warn check --deny warnings bans licenses sources
    if timeout 120 "$cargo_deny" --log-level error fetch db >/dev/null 2>&1; then
        step "known vulnerabilities" "$cargo_deny" --log-level warn check --deny warnings advisories
    else
        leave_out "known vulnerabilities: their database (github.com/RustSec/advisory-db) cannot be had here"
    fi
}
