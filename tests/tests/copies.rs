//! `isolab cp` at `process` and `container`, on any host.

use isolab_tests::copies;

const LEVELS: [&str; 2] = ["process", "container"];

#[test]
fn in_and_out() {
    LEVELS.into_iter().for_each(copies::in_and_out);
}

#[test]
fn archives() {
    LEVELS.into_iter().for_each(copies::archives);
}
