//! How many descriptors guests may make this process hold.
//!
//! Every file that the guest's kernel knows is an open descriptor here, and it forgets one when it
//! needs the memory, not when we do. A guest that reaches the limit gets ENFILE for the next name,
//! while the devices beside it, this process and the host have theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the rest of the machine may need: queues' events, taps, disks, sockets, vCPUs.
const RESERVE: u64 = 1024;
/// As virtiofsd has it. Each costs the host some 1.5 KiB for the file, its name and its inode, which
/// is counted to the control group of this process.
const MOST: u64 = 1_000_000;

/// Descriptors that are left, to all shares of a machine together.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// A budget of so many descriptors.
    pub fn new(descriptors: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(descriptors)))
    }

    /// What RLIMIT_NOFILE gives when it is raised as far as this process may, less what the rest of
    /// the machine needs.
    pub fn of_this_process() -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((RESERVE, RESERVE));
        let wanted = MOST + RESERVE;
        let raised = [wanted.max(hard), hard].into_iter().find_map(|hard| {
            let soft = wanted.min(hard);
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).ok().map(|()| soft)
        });
        let limit = raised.unwrap_or(soft);
        // With very few there is something for both.
        let ours = limit.saturating_sub(RESERVE.min(limit / 2)).min(MOST);
        Self::new(usize::try_from(ours).unwrap_or(usize::MAX))
    }

    /// One descriptor.
    ///
    /// # Errors
    /// ENFILE: there is none left.
    pub fn take(&self) -> Result<Permit, Errno> {
        let one_less = |left: usize| left.checked_sub(1);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
            Ok(_) => Ok(Permit(Arc::clone(&self.0))),
            Err(_) => Err(Errno::ENFILE),
        }
    }

    /// How many there still are.
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Leave to hold one descriptor, given back when it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone_until_it_is_given_back() {
        let budget = Budget::new(2);
        let (first, _second) = (budget.take().unwrap(), budget.clone().take().unwrap());
        assert_eq!(budget.take().unwrap_err(), Errno::ENFILE);
        drop(first);
        assert_eq!(budget.left(), 1);
        assert!(budget.take().is_ok());
    }
}
