//! What the commands' output has in common.

use clap::ValueEnum;

/// The exit code of a failure of isolab itself, as runc's and podman's: distinct from those of
/// the workload as far as that is possible.
pub const EXIT_OWN_FAILURE: u8 = 125;

/// How facts are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}
