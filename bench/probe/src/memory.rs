//! Memory by the size of what is worked on: how long a load takes, how long a copy, and what address translation adds.

use std::hint::black_box;
use std::io;

use crate::clock::each;
use crate::paging::{Mapping, PAGE};
use crate::{Probe, probe};

/// Bytes of a cache line on x86.
const LINE: usize = 64;
/// Sizes for the first, second and last cache of today's processors, and for what none of them holds.
const SMALL: usize = 16 << 10;
const MEDIUM: usize = 512 << 10;
const LARGE: usize = 8 << 20;
const HUGE: usize = 64 << 20;

/// `load_*`: one load whose address is the load's before it. `copy_*`: a copy of 4 KiB. `walk_*`: one load in each page
/// of 4 KiB, so that translations are what caches do not hold.
pub const PROBES: [Probe; 10] = [
    probe("load_16k", 1_000_000, |loads| chase(loads, SMALL, LINE, false)),
    probe("load_512k", 500_000, |loads| chase(loads, MEDIUM, LINE, false)),
    probe("load_8m", 200_000, |loads| chase(loads, LARGE, LINE, false)),
    probe("load_64m", 100_000, |loads| chase(loads, HUGE, LINE, false)),
    probe("walk_64m", 50_000, |loads| chase(loads, HUGE, PAGE + LINE, false)),
    probe("walk_64m_huge", 50_000, |loads| chase(loads, HUGE, PAGE + LINE, true)),
    probe("copy_16k", 50_000, |copies| copy(copies, SMALL)),
    probe("copy_512k", 20_000, |copies| copy(copies, MEDIUM)),
    probe("copy_8m", 8_192, |copies| copy(copies, LARGE)),
    probe("copy_64m", 8_192, |copies| copy(copies, HUGE / 2)),
];

/// Follows a chain through places `stride` bytes apart in `bytes` bytes, in an order that no prefetcher foresees.
fn chase(loads: u32, bytes: usize, stride: usize, huge: bool) -> io::Result<f64> {
    let mut mapping = Mapping::new(bytes)?;
    mapping.huge_pages(huge);
    let memory = mapping.as_mut();
    let places = bytes / stride;
    let order = cycle(places);
    for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
        memory[from * stride..][..8].copy_from_slice(&(to * stride).to_ne_bytes());
    }
    let mut place = 0;
    let time = each(loads, || {
        let mut next = [0; 8];
        next.copy_from_slice(&memory[place..place + 8]);
        place = usize::from_ne_bytes(next);
        Ok(())
    });
    black_box(place);
    time
}

/// All numbers below `length` in an order without pattern, the same each time: a shuffle (Fisher and Yates) by
/// xorshift64 (Marsaglia 2003).
fn cycle(length: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..length).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(last, (random % (last as u64 + 1)) as usize);
    }
    order
}

/// Copies page by page from one half of `2 * bytes` bytes to the other, over and over.
fn copy(copies: u32, bytes: usize) -> io::Result<f64> {
    let mut mapping = Mapping::new(2 * bytes)?;
    let (from, to) = mapping.as_mut().split_at_mut(bytes);
    // Pages of zeroes that were never written to are one and the same page.
    from.fill(1);
    to.fill(2);
    let pages = bytes / PAGE;
    let mut page = 0;
    let time = each(copies, || {
        let range = page * PAGE..(page + 1) * PAGE;
        to[range.clone()].copy_from_slice(black_box(&from[range]));
        page = (page + 1) % pages;
        Ok(())
    });
    black_box(to);
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_leads_to_every_place() {
        let mut order = cycle(1000);
        assert_ne!(order[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }
}
