//! How the end of a workload is told that does not end by itself.

use crate::lifecycle::Bench;

/// A workload that wants more memory than there is.
pub fn out_of_memory(level: &str) {
    let bench = Bench::new(level);
    // A process of it, and the workload itself.
    for (script, code) in [("tail /dev/zero; exit 3", "3"), ("exec tail /dev/zero", "137")] {
        bench.start(&["--name", "greedy", "--memory", "96M"], script);
        assert_eq!(bench.isolab(&["wait", "greedy"]).success().trim_end(), code, "{script}");
        assert_eq!(bench.field("greedy", "{{.State.OOMKilled}}"), "true", "{script}");
        bench.isolab(&["rm", "greedy"]).success();
    }
    bench.start(&["--name", "modest", "--memory", "96M"], "sleep 1000");
    bench.isolab(&["kill", "modest"]).success();
    assert_eq!(bench.isolab(&["wait", "modest"]).success(), "137\n");
    assert_eq!(bench.field("modest", "{{.State.OOMKilled}}"), "false");
    bench.isolab(&["rm", "modest"]).success();
}
