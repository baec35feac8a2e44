//! The shop in three tiers at the VM levels, and mixed.

use isolab_tests::tiers;

#[test]
fn paravirt() {
    let level = "paravirt";
    tiers::a_life(&["--isolation", level], [("web", level), ("app", level), ("db", level)]);
}

#[test]
fn mixed() {
    let levels = ["--web", "container", "--app", "process", "--db", "fullvirt"];
    tiers::a_life(&levels, [("web", "container"), ("app", "process"), ("db", "fullvirt")]);
}

#[test]
fn acknowledged_orders_stay() {
    tiers::acknowledged_orders_stay("paravirt", 1);
}
