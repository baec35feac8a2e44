//! The shop in three tiers at the VM levels, and mixed: all that `process` and `container` are asked.

use isolab_tests::tiers;

/// One after the other, of one store: where KVM is emulated the images take a minute to load.
#[test]
fn each_level_and_mixed() {
    let mut host = tiers::host();
    for level in ["paravirt", "fullvirt"] {
        let expected = [("web", level), ("app", level), ("db", level)];
        host = tiers::a_life(host, &["--isolation", level], expected);
    }
    let levels = ["--web", "container", "--app", "process", "--db", "fullvirt"];
    let expected = [("web", "container"), ("app", "process"), ("db", "fullvirt")];
    host = tiers::a_life(host, &levels, expected);
    tiers::acknowledged_orders_stay(host, "paravirt", 1);
}
