//! The shop in three tiers at `process` and `container`, on any host. `scripts/make-tiers-images` makes its images.

use isolab_tests::{rounds, standby, tiers};

#[test]
fn containers() {
    let level = "container";
    let expected = [("web", level), ("app", level), ("db", level)];
    tiers::a_life(tiers::host(), &["--isolation", level], expected);
}

#[test]
fn processes() {
    let level = "process";
    let expected = [("web", level), ("app", level), ("db", level)];
    tiers::a_life(tiers::host(), &["--isolation", level], expected);
}

#[test]
fn servers_come_and_go() {
    tiers::servers_come_and_go("container", rounds(1));
}

#[test]
fn acknowledged_orders_stay() {
    let mut host = tiers::host();
    for level in ["process", "container"] {
        host = tiers::acknowledged_orders_stay(host, level, rounds(2));
    }
}

#[test]
fn a_standby_takes_over() {
    standby::takes_over("container");
}

#[test]
fn a_standby_takes_over_among_processes() {
    standby::takes_over("process");
}

#[test]
fn failures() {
    tiers::failures();
}
