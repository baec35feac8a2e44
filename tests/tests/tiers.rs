//! The shop in three tiers at `process` and `container`, on any host. `scripts/make-tiers-images` makes its images.

use isolab_tests::tiers;

#[test]
fn containers() {
    let level = "container";
    tiers::a_life(&["--isolation", level], [("web", level), ("app", level), ("db", level)]);
}

#[test]
fn processes() {
    let level = "process";
    tiers::a_life(&["--isolation", level], [("web", level), ("app", level), ("db", level)]);
}

#[test]
#[ignore = "it stops the second server before web, which looks once a second, knows that the first is back"]
fn servers_come_and_go() {
    tiers::servers_come_and_go("container");
}

#[test]
fn acknowledged_orders_stay() {
    tiers::acknowledged_orders_stay("container", 5);
}

#[test]
fn failures() {
    tiers::failures();
}
