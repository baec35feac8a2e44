//! Between processes and threads: pipes, context switches, futexes.

use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe as new_pipe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::clock::each;
use crate::processes::in_child;

/// A byte into a pipe and out of it, by one process.
pub fn pipe(operations: u32) -> io::Result<f64> {
    let (mut reader, mut writer) = new_pipe()?;
    each(operations, || {
        writer.write_all(b"x")?;
        reader.read_exact(&mut [0])
    })
}

/// Two processes on one processor that wake each other by pipes: half of a round trip, which is one switch with a write
/// and a read.
pub fn context_switch(operations: u32) -> io::Result<f64> {
    on_one_processor(|| {
        let (mut reader, mut writer) = new_pipe()?;
        let (mut back_reader, mut back_writer) = new_pipe()?;
        let answer = || echo(operations, &mut reader, &mut back_writer);
        let child = in_child(answer)?;
        let time = each(operations, || {
            writer.write_all(b"x")?;
            back_reader.read_exact(&mut [0])
        });
        child.wait()?;
        Ok(time? / 2.0)
    })
}

fn echo(times: u32, from: &mut PipeReader, to: &mut PipeWriter) -> io::Result<()> {
    (0..times).try_for_each(|_| {
        from.read_exact(&mut [0])?;
        to.write_all(b"x")
    })
}

/// Two threads on one processor that wake each other by futexes, which is what std's parking is: half of a round trip.
pub fn futex(operations: u32) -> io::Result<f64> {
    on_one_processor(|| {
        let turn = Arc::new(AtomicU32::new(0));
        let (theirs, main) = (Arc::clone(&turn), thread::current());
        let other = thread::Builder::new().spawn(move || {
            for _ in 0..operations {
                await_turn(&theirs, 1);
                theirs.store(0, Ordering::Release);
                main.unpark();
            }
        })?;
        let begun = Instant::now();
        for _ in 0..operations {
            turn.store(1, Ordering::Release);
            other.thread().unpark();
            await_turn(&turn, 0);
        }
        let time = begun.elapsed().as_nanos() as f64 / f64::from(operations) / 2.0;
        other.join().map_err(|_| io::Error::other("the other thread panicked"))?;
        Ok(time)
    })
}

fn await_turn(turn: &AtomicU32, wanted: u32) {
    while turn.load(Ordering::Acquire) != wanted {
        thread::park();
    }
}

/// Where there are several processors, whether both sides share one is luck, and a wake-up another thing.
fn on_one_processor(measure: impl FnOnce() -> io::Result<f64>) -> io::Result<f64> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu).unwrap_or(false));
    one.set(first.ok_or_else(|| io::Error::other("there is no processor"))?)?;
    sched_setaffinity(this, &one)?;
    let time = measure();
    sched_setaffinity(this, &all)?;
    time
}
