//! Much through one process of an instance, both ways at once, by the commands that people use.

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use crate::{Sandbox, isolab_path};

const MIB: usize = 1 << 20;
/// By how many bytes each MiB is turned, so that none is like another: what is lost, or comes twice or elsewhere,
/// shows.
const TURN: usize = 4099;

/// How many MiB a test passes: `usual`, or what ISOLAB_TEST_MIB says (1024 for when there is time).
pub fn mebibytes(usual: usize) -> usize {
    env::var("ISOLAB_TEST_MIB").ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// The MiB of that number, in two parts.
fn mebibyte(random: &[u8], number: usize) -> [&[u8]; 2] {
    let (end, begin) = random.split_at(number * TURN % random.len());
    [begin, end]
}

/// So many MiB go into `isolab exec -i … cat`, and come out as they were.
pub fn through_exec(level: &str, count: usize) {
    let sandbox = Sandbox::with_busybox();
    let words = ["run", "-d", "--rm", "--name", "pipe", "--isolation", level];
    sandbox.isolab(&words).args(&["busybox", "sleep", "100000"]).finish().success();
    let mut random = vec![0; MIB];
    let source = File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut random));
    source.expect("there are random numbers");
    let mut exec = Command::new(isolab_path())
        .args(["exec", "-i", "pipe", "cat"])
        .env("XDG_DATA_HOME", sandbox.data())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = exec.stdin.take().expect("it is piped");
    let mut stdout = exec.stdout.take().expect("it is piped");
    thread::scope(|scope| {
        let random = &random;
        scope.spawn(move || {
            for number in 0..count {
                for part in mebibyte(random, number) {
                    stdin.write_all(part).expect("it is read");
                }
            }
        });
        let mut came = vec![0; MIB];
        for number in 0..count {
            stdout.read_exact(&mut came).unwrap_or_else(|error| panic!("MiB {number}: {error}"));
            assert!(came == mebibyte(random, number).concat(), "MiB {number} is another");
        }
        assert_eq!(stdout.read(&mut came).expect("it can be read"), 0, "more than that came");
    });
    assert!(exec.wait().expect("it is ours").success());
    sandbox.isolab(&["rm", "--force", "pipe"]).finish().success();
}
