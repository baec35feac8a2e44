//! What a board has its kernel told.

use super::acpi::BoardTables;

/// A board, as a kernel that is started on it without firmware has to know it.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Its part in the ACPI tables. The MP table says the same of every board.
    pub acpi: BoardTables,
    /// Ranges (start, length) of guest-physical addresses that are not to be taken for RAM.
    pub reserved: &'static [(u64, u64)],
    /// Words for Linux's command line. In front of the operator's, which so win.
    pub linux_words: String,
}
