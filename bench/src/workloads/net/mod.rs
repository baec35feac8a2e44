//! `isolab bench net`: streams, round trips and connections, of instances of the levels and of guests of bare machines.

mod iperf;
pub mod levels;
pub mod machines;
mod ping;
mod tap;

use super::jobs::Units;

const STREAM: Units = Units { throughput: "Mbit/s", work: "MiB" };
