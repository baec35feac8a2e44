//! Instances on networks at `process` and `container`, on any host.

use isolab_tests::{networked, user_ids};

const LEVELS: [&str; 2] = ["process", "container"];

#[test]
fn a_life() {
    LEVELS.into_iter().for_each(networked::a_life);
}

#[test]
fn watched() {
    LEVELS.into_iter().for_each(networked::watched);
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
fn a_crowd() {
    networked::a_crowd(&LEVELS.map(|level| (level, 4)));
}

#[test]
fn nginx() {
    LEVELS.into_iter().for_each(networked::nginx);
}

#[test]
fn a_user_namespace() {
    user_ids::a_life();
}
