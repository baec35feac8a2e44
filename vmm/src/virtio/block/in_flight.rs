//! The requests that a queue has with the host's disk, by tag. Both engines number theirs by the
//! tags from here, so there is one such list for each queue and none of its places is ever made
//! twice.

use vm_memory::GuestAddress;

use super::request::Part;
use crate::virtio::chain::Chain;

/// A request on its way.
pub struct Pending {
    /// Its buffers, cut to the data.
    pub chain: Chain,
    /// Where the status goes.
    pub status: GuestAddress,
    /// Bytes the device may write before the status.
    pub data_length: u32,
    /// Payload, in bytes.
    pub payload: u64,
    /// See [`Request::weight`](super::request::Request::weight).
    pub weight: u64,
    /// What the disk does now.
    pub part: Part,
    /// What it is to do afterwards, last first.
    pub later: Vec<Part>,
}

/// The requests that the engine has, by tag.
#[derive(Default)]
pub struct InFlight {
    entries: Vec<Option<Pending>>,
    free: Vec<u16>,
    weight: u64,
}

impl InFlight {
    /// Takes a request in; its tag. There are never more than a ring has entries.
    pub fn insert(&mut self, pending: Pending) -> u16 {
        self.weight += pending.weight;
        let tag = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            // At most 2^15 entries in a ring (virtio 1.2, 2.7).
            (self.entries.len() - 1) as u16
        });
        self.entries[usize::from(tag)] = Some(pending);
        tag
    }

    /// The request with this tag; `None` where none is in flight.
    pub fn get_mut(&mut self, tag: u16) -> Option<&mut Pending> {
        self.entries.get_mut(usize::from(tag))?.as_mut()
    }

    /// Takes the request `tag` out.
    pub fn remove(&mut self, tag: u16) -> Option<Pending> {
        let pending = self.entries.get_mut(usize::from(tag))?.take()?;
        self.weight -= pending.weight;
        self.free.push(tag);
        Some(pending)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The weight of all of them.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Part;
    use super::*;
    use crate::backend::disk::DiskOperation;

    fn pending(head: u16, weight: u64) -> Pending {
        Pending {
            chain: Chain { head, ..Chain::default() },
            status: GuestAddress(0),
            data_length: 0,
            payload: 0,
            weight,
            part: Part { operation: DiskOperation::Flush, offset: 0, length: 0 },
            later: Vec::new(),
        }
    }

    #[test]
    fn tags_are_small_and_used_again() {
        let mut requests = InFlight::default();
        let tags = [10, 11, 12].map(|head| requests.insert(pending(head, 4)));
        assert_eq!(tags, [0, 1, 2]);
        assert_eq!(requests.remove(1).map(|pending| pending.chain.head), Some(11));
        assert!(requests.remove(1).is_none() && requests.get_mut(1).is_none());
        assert_eq!((requests.count(), requests.weight()), (2, 8));
        assert_eq!(requests.insert(pending(13, 1)), 1);
        assert_eq!(requests.get_mut(1).map(|pending| pending.chain.head), Some(13));
        assert!(requests.remove(3).is_none());
        assert_eq!(requests.weight(), 9);
    }
}
