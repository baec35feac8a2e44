//! Projects of several services at `process` and `container`, on any host.

use isolab_tests::composed;

const LEVELS: [&str; 2] = ["process", "container"];

#[test]
fn a_life() {
    LEVELS.into_iter().for_each(composed::a_life);
}

#[test]
fn other_commands() {
    composed::other_commands("container");
}

#[test]
fn failures() {
    LEVELS.into_iter().for_each(composed::failures);
}

#[test]
fn levels() {
    composed::levels();
}

#[test]
fn files() {
    composed::files(&LEVELS);
}

#[test]
fn watched() {
    LEVELS.into_iter().for_each(composed::watched);
}

#[test]
fn mixed() {
    composed::mixed(&LEVELS);
}
