# shellcheck shell=bash
# What the scripts share: where the cache is, and how a missing program is installed.

# Downloads, built kernels and images, outside the checkout and safe to delete.
isolab_cache() {
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/isolab"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# With the time since this script began: where it went is what a long run is asked first.
note() {
    printf '%s: [%d:%02d] %s\n' "${0##*/}" $((SECONDS / 60)) $((SECONDS % 60)) "$*" >&2
}

# apt-get with these words: what it says is of interest only if it fails.
apt_get() {
    local said
    said=$(DEBIAN_FRONTEND=noninteractive apt-get -q "$@" 2>&1) ||
        die "apt-get $* failed; it said:"$'\n'"$said"
}

apt_update_once() {
    [ -z "${ISOLAB_APT_UPDATED-}" ] || return 0
    note "updating the package lists"
    apt_get update
    export ISOLAB_APT_UPDATED=1
}

# need PROGRAM PACKAGE [PROGRAM PACKAGE]...: installs the packages whose programs are missing.
need() {
    local missing=() program package
    while [ $# -gt 0 ]; do
        program=$1 package=$2
        shift 2
        command -v "$program" >/dev/null || [ -e "$program" ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "this host has no apt-get; install what provides: ${missing[*]} (names of Debian packages)"
    [ "$(id -u)" = 0 ] || die "run as root, or install these packages first: ${missing[*]}"
    apt_update_once
    note "installing ${missing[*]}"
    apt_get install -y --no-install-recommends "${missing[@]}"
}

need_cargo() {
    command -v cargo >/dev/null ||
        die "there is no cargo; install Rust 1.88 or later (https://rustup.rs)"
}

# The path of this checkout's executable $1.
built() {
    local executable
    executable=$(dirname "${BASH_SOURCE[0]}")/../../target/x86_64-unknown-linux-gnu/release/$1
    [ -x "$executable" ] || die "$1 is not built yet; run cargo build --release first"
    realpath "$executable"
}

# Unpacks the stock kernels here, where that takes a second, rather than in every emulated host.
warm_kernel_cache() {
    local kernel
    for kernel in "$(isolab_cache)"/kernels/*/vmlinuz; do
        [ ! -e "$kernel" ] || "$(built isolab)" vm extract-vmlinux "$kernel"
    done
}
