//! The `isolab` command: parse, call a library, print.
fn main() {}
