//! The command line of `isolab-oci`, which the executable reads and man pages are made of (`isolab-manual`).

#[allow(
    missing_docs,
    reason = "what is said of a group of options would be said of the command that has it"
)]
pub mod options;
