//! The shop in three tiers at the VM levels, and mixed: all that `process` and `container` are asked.

use isolab_tests::{rounds, standby, tiers};

/// One after the other, of one store: the images take a while to load.
#[test]
fn each_level_and_mixed() {
    let mut host = tiers::host();
    for level in ["paravirt", "fullvirt"] {
        let expected = [("web", level), ("app", level), ("db", level)];
        host = tiers::a_life(host, &["--isolation", level], expected);
    }
    let levels = ["--web", "container", "--app", "process", "--db", "fullvirt"];
    let expected = [("web", "container"), ("app", "process"), ("db", "fullvirt")];
    tiers::a_life(host, &levels, expected);
}

#[test]
fn servers_come_and_go() {
    tiers::servers_come_and_go("paravirt", rounds(1));
}

#[test]
fn acknowledged_orders_stay() {
    let mut host = tiers::host();
    for level in ["paravirt", "fullvirt"] {
        host = tiers::acknowledged_orders_stay(host, level, rounds(1));
    }
}

#[test]
#[ignore = "ten minutes where KVM is emulated: scripts/test slow"]
fn a_standby_takes_over() {
    standby::takes_over("paravirt");
}

#[test]
#[ignore = "longer yet where KVM is emulated: scripts/test slow"]
fn a_standby_takes_over_in_emulated_hardware() {
    standby::takes_over("fullvirt");
}
