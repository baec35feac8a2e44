//! Measurements at every level, and the report.
