//! Instances in the background at the VM levels: needs a host with a working KVM, see `scripts/kvm-host`.

use isolab_tests::{ends, lifecycle, rounds};

const LEVELS: [&str; 2] = ["paravirt", "fullvirt"];

#[test]
fn a_service() {
    LEVELS.into_iter().for_each(lifecycle::a_service);
}

#[test]
fn failures() {
    LEVELS.into_iter().for_each(lifecycle::failures);
}

#[test]
fn courses() {
    LEVELS.into_iter().for_each(lifecycle::courses);
}

#[test]
fn writes() {
    LEVELS.into_iter().for_each(lifecycle::writes);
}

#[test]
fn out_of_memory() {
    LEVELS.into_iter().for_each(ends::out_of_memory);
}

#[test]
fn figures_of_a_guest() {
    LEVELS.into_iter().for_each(lifecycle::figures_of_a_guest);
}

#[test]
fn guests_that_fail() {
    LEVELS.into_iter().for_each(ends::guests_that_fail);
}

#[test]
fn a_guest_that_hangs() {
    LEVELS.into_iter().for_each(ends::a_guest_that_hangs);
}

#[test]
fn health() {
    lifecycle::health("paravirt");
}

#[test]
fn a_flood() {
    lifecycle::a_flood("paravirt");
}

#[test]
fn kills_at_any_moment() {
    LEVELS.into_iter().for_each(|level| lifecycle::kills(level, rounds(3)));
}
