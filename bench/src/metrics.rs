//! Names of metrics that workloads and the plots of the report share.

/// From spawn to the workload's first line of output.
pub const TO_FIRST_OUTPUT: &str = "to_first_output";
/// The parts that [`TO_FIRST_OUTPUT`] falls into.
pub const PHASES: [&str; 4] = ["setup", "kernel_boot", "init", "workload"];
/// The time of the start of one of several instances beside each other: which one, counted from 1, and the name.
pub const STARTS: [(u32, &str); 7] = [
    (1, "start_1st"),
    (2, "start_2nd"),
    (5, "start_5th"),
    (10, "start_10th"),
    (20, "start_20th"),
    (50, "start_50th"),
    (100, "start_100th"),
];
/// The end of the name of what a job got done in a second.
pub const THROUGHPUT: &str = "_throughput";
/// The end of the name of the exits of a job's piece of work.
pub const EXITS: &str = "_exits";
/// In front of the requests a second that were due, in metrics of an open loop.
pub const RATE: &str = "rate_";
/// The end of the name of the time that half of the requests took at most, and of that of 99 of 100.
pub const PERCENTILES: [&str; 2] = ["_p50", "_p99"];
/// The name of random reading of so many bytes at a time, behind the place that is read; what they get done is in MiB/s.
pub const READS: [(u32, &str); 6] = [
    (512, "randread_512"),
    (4 << 10, "randread_4k"),
    (16 << 10, "randread_16k"),
    (64 << 10, "randread_64k"),
    (256 << 10, "randread_256k"),
    (1 << 20, "randread_1m"),
];
