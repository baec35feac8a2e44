//! `isolab bench net`: streams, round trips and connections, of instances of the levels and of guests of bare machines.

mod iperf;
pub mod levels;
pub mod machines;
mod probe;
mod tap;

use super::jobs::Units;

const STREAM: Units = Units { throughput: "Mbit/s", work: "MiB" };
const ROUND_TRIPS: Units = Units { throughput: "per s", work: "round trip" };
