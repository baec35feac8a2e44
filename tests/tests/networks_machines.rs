//! Instances on networks at the VM levels, and at all levels at once: needs a host with a working KVM, see
//! `scripts/kvm-host`.

use isolab_tests::{composed, networked, user_mode};

const LEVELS: [&str; 2] = ["paravirt", "fullvirt"];

#[test]
fn a_life() {
    LEVELS.into_iter().for_each(networked::a_life);
}

#[test]
fn watched() {
    networked::watched("paravirt");
}

#[test]
fn failures() {
    LEVELS.into_iter().for_each(networked::failures);
}

#[test]
fn words() {
    LEVELS.into_iter().for_each(networked::words);
}

#[test]
fn a_crowd_of_twenty() {
    networked::a_crowd(&[("process", 6), ("container", 6), ("paravirt", 5), ("fullvirt", 3)]);
}

#[test]
fn nginx() {
    LEVELS.into_iter().for_each(networked::nginx);
}

#[test]
fn a_project_of_all_levels() {
    composed::mixed(&["process", "container", "paravirt", "fullvirt"]);
}

#[test]
fn files_of_a_project() {
    composed::files(&["container", "paravirt", "fullvirt"]);
}

#[test]
fn without_root() {
    user_mode::a_life("paravirt");
}
