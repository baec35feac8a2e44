//! How threads are made here.

use std::thread::Builder;

/// Far more than any of them uses; a stack of the usual 2 MiB may be given a huge page at its first touch.
const STACK: usize = 256 << 10;

pub(crate) fn builder(name: &str) -> Builder {
    Builder::new().name(name.to_owned()).stack_size(STACK)
}
