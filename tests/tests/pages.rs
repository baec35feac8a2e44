//! Pages in headless Chromium, as people open them. `scripts/make-tiers-images` makes the shop's images.

use isolab_tests::pages;

#[test]
fn the_shop() {
    pages::the_shop("container");
}

#[test]
fn a_report() {
    pages::a_report();
}
