//! How the VMM makes its threads.

use std::thread::Builder;

/// Far more than any thread here uses. A stack of the usual 2 MiB may be given a huge page as soon
/// as it is touched: 2 MiB of the host's memory for each thread, and the time to clear them (a
/// millisecond on the emulated KVM host).
const STACK: usize = 512 << 10;

/// A builder of threads with a name and a small stack.
pub fn builder(name: impl Into<String>) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK)
}
