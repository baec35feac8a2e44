//! The shop in three tiers in guests, as shortly as it can be. tiers_machines_whole.rs has the rest.

use isolab_tests::tiers;

#[test]
fn an_order_at_all_vm_levels() {
    let levels = ["--web", "container", "--app", "paravirt", "--db", "fullvirt"];
    let expected = [("web", "container"), ("app", "paravirt"), ("db", "fullvirt")];
    tiers::a_short_life(tiers::host(), &levels, expected);
}
