//! What requests of virtio devices cost, from a driver's ring and back.

#![allow(missing_docs, reason = "Criterion's macros make public functions")]

mod block;
mod driver;
mod virtqueue;

criterion::criterion_main!(virtqueue::benches, block::benches);
