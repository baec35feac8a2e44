//! Instances in the background at `process` and `container`, on any host.

use isolab_tests::{ends, lifecycle, rounds};

const LEVELS: [&str; 2] = ["process", "container"];

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
fn no_guest() {
    LEVELS.into_iter().for_each(ends::no_guest);
}

#[test]
fn health() {
    LEVELS.into_iter().for_each(lifecycle::health);
}

#[test]
fn detach_keys() {
    LEVELS.into_iter().for_each(lifecycle::detach_keys);
}

#[test]
fn a_flood() {
    LEVELS.into_iter().for_each(lifecycle::a_flood);
}

#[test]
fn kills_at_any_moment() {
    LEVELS.into_iter().for_each(|level| lifecycle::kills(level, rounds(50)));
}
