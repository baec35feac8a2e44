//! `isolab bench disk`: fio, in instances of the levels and in guests of bare machines.

mod fio;
pub mod levels;
pub mod machines;
