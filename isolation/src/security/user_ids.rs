//! Ids of a container that root gives a user namespace: a block of the host's that no other container has, of the ranges
//! which the administrator has set apart for containers, as podman has it (subuid(5), subgid(5)).

use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use isolab_container::user_and_network_namespace;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime::LinuxIdMapping;

use super::namespaces::to_oci;
use super::subordinate::{IdMap, IdRange, ranges_of};
use crate::error::IsolationError;

/// Whose ranges they are; podman's containers are of the same.
const OWNER: &str = "containers";
/// How many ids a container has: all that 16 bits can name.
const BLOCK: u32 = 65536;
/// Where the blocks that are in use have a locked file each, of all containers of this host.
const FOLDER: &str = "/run/isolab/ids";

/// A block of ids, for as long as this is there.
#[derive(Debug)]
pub struct UserIds {
    /// The host's user and group that the container's root is.
    first: [u32; 2],
    _lock: Flock<File>,
}

/// A user namespace with a block of ids, and a network namespace that belongs to it.
#[derive(Debug)]
pub struct UserAndNetwork {
    /// The ids.
    pub ids: UserIds,
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace; its loopback interface is down.
    pub network: OwnedFd,
}

impl UserIds {
    /// The first block that is free.
    ///
    /// # Errors
    /// There are no ranges, all blocks are in use, or the folder of the locks cannot be written.
    pub fn take() -> Result<Self, IsolationError> {
        let [users, groups] = ranges_of(OWNER);
        Self::take_of(&users, &groups, Path::new(FOLDER))
    }

    fn take_of(
        users: &[IdRange],
        groups: &[IdRange],
        folder: &Path,
    ) -> Result<Self, IsolationError> {
        let blocks: Vec<[u32; 2]> =
            blocks(users).zip(blocks(groups)).map(|(user, group)| [user, group]).collect();
        let io = |source| IsolationError::Io { action: "write to", path: folder.into(), source };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(io)?;
        for first in &blocks {
            // Not removed: whoever waits for a lock would have that of a file which nobody else sees.
            let path = folder.join(first[0].to_string());
            let file = File::options().create(true).append(true).open(path).map_err(io)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { first: *first, _lock: lock }),
                Err((_, Errno::EWOULDBLOCK)) => {}
                Err((_, errno)) => return Err(io(errno.into())),
            }
        }
        let why = match blocks.len() {
            0 => format!(
                "/etc/subuid and /etc/subgid have no range of {BLOCK} ids for {OWNER}; as root, `echo \
                 {OWNER}:2147483648:1073741824 | tee -a /etc/subuid >>/etc/subgid` adds one"
            ),
            all => format!(
                "all {all} blocks of {BLOCK} ids for {OWNER} are in use (/etc/subuid, /etc/subgid)"
            ),
        };
        Err(IsolationError::Setting { field: "user namespace", why })
    }

    /// The maps of users and groups.
    pub(crate) fn maps(&self) -> Result<[Vec<LinuxIdMapping>; 2], IsolationError> {
        let one = |host| to_oci(&[IdMap { inside: 0, host, count: BLOCK }]);
        Ok([one(self.first[0])?, one(self.first[1])?])
    }

    /// The host's user that is `uid` inside.
    pub(crate) fn on_host(&self, uid: u32) -> u32 {
        self.first[0].saturating_add(uid.min(BLOCK - 1))
    }
}

impl UserAndNetwork {
    /// Makes both, with the first block that is free.
    ///
    /// # Errors
    /// As [`UserIds::take`], or the namespaces cannot be made.
    pub fn make() -> Result<Self, IsolationError> {
        let ids = UserIds::take()?;
        let [users, groups] = ids.maps()?;
        let [user, network] = user_and_network_namespace(&users, &groups)?;
        Ok(Self { ids, user, network })
    }
}

/// Where whole blocks begin.
fn blocks(ranges: &[IdRange]) -> impl Iterator<Item = u32> {
    ranges
        .iter()
        .flat_map(|range| (0..range.count / BLOCK).map(|number| range.start + number * BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_one_s_alone_until_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let users = [
            IdRange { start: 100_000, count: BLOCK - 1 },
            IdRange { start: 200_000, count: 2 * BLOCK + 5 },
        ];
        let groups = [IdRange { start: 300_000, count: 3 * BLOCK }];
        let take = || UserIds::take_of(&users, &groups, folder.path());
        let (first, second) = (take().unwrap(), take().unwrap());
        assert_eq!((first.first, second.first), ([200_000, 300_000], [265_536, 365_536]));
        assert!(take().unwrap_err().to_string().contains("all 2 blocks"));
        drop(first);
        assert_eq!(take().unwrap().first, [200_000, 300_000]);
        let [users, _] = second.maps().unwrap();
        assert_eq!((users[0].host_id(), users[0].size()), (265_536, BLOCK));
        assert_eq!((second.on_host(7), second.on_host(u32::MAX)), (265_543, 331_071));
    }

    #[test]
    fn without_ranges_the_way_out_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = UserIds::take_of(&[], &[], folder.path()).unwrap_err().to_string();
        assert!(error.contains("/etc/subuid") && error.contains("containers:"), "{error}");
    }
}
