//! Capabilities: names to bits in the runtime, bits to the kernel in the child.
//!
//! The child must not allocate, so the sets are plain 64-bit masks and the calls are the raw ones of capabilities(7).

use std::fs;
use std::io;

use nix::errno::Errno;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};

/// The five capability sets, bit N being capability number N of `linux/capability.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl CapabilitySets {
    /// The sets of an OCI configuration; an absent set is empty, as in runc. What is ambient without being permitted
    /// and inheritable, the kernel raises for nobody; `runc spec` writes such a set, and all runtimes go on without.
    pub(crate) fn from_oci(capabilities: &LinuxCapabilities) -> Self {
        let permitted = mask(capabilities.permitted());
        let inheritable = mask(capabilities.inheritable());
        CapabilitySets {
            bounding: mask(capabilities.bounding()),
            effective: mask(capabilities.effective()),
            permitted,
            inheritable,
            ambient: mask(capabilities.ambient()) & permitted & inheritable,
        }
    }

    /// Child: drops what is not in the bounding set. Needs `CAP_SETPCAP`, so it comes before the user changes.
    pub(crate) fn limit_bounding_set(&self) -> Result<(), Failure> {
        for number in 0..64 {
            if self.bounding & (1 << number) != 0 {
                continue;
            }
            match prctl(libc::PR_CAPBSET_DROP, number) {
                // Beyond the last capability this kernel knows.
                Err(Errno::EINVAL) => break,
                other => other.at_index(Step::BoundingSet, number as usize)?,
            }
        }
        Ok(())
    }

    /// Child: sets the other four sets, after the user has been changed.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        capset(self.effective, self.permitted, self.inheritable).at(Step::Capabilities)?;
        match prctl2(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0) {
            // A kernel without ambient capabilities has none to clear.
            Err(Errno::EINVAL) if self.ambient == 0 => return Ok(()),
            other => other.at(Step::AmbientSet)?,
        }
        for number in (0..64).filter(|number| self.ambient & (1 << number) != 0) {
            prctl2(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, number)
                .at_index(Step::AmbientSet, number as usize)?;
        }
        Ok(())
    }

    /// Names those capabilities that are asked for and that `held` lacks.
    pub(crate) fn missing_from(&self, held: u64) -> Vec<String> {
        let missing = (self.effective | self.permitted | self.ambient) & !held;
        (0u32..64).filter(|n| missing & (1u64 << n) != 0).map(name_of).collect()
    }
}

fn name_of(number: u32) -> String {
    match BY_NUMBER.get(number as usize) {
        Some(capability) => format!("CAP_{capability}"),
        None => format!("capability {number}"),
    }
}

/// Bit N is capability number N of `linux/capability.h`; no set is an empty one.
pub fn capability_mask(set: &Option<Capabilities>) -> u64 {
    mask(set)
}

/// Those that the runtime knows, by their number.
pub fn known_capabilities() -> &'static [Capability] {
    &BY_NUMBER
}

/// All capabilities that this process can hand on: those that it holds itself, or, to a container in a new user
/// namespace, all that its kernel knows.
///
/// # Errors
/// The kernel does not tell.
pub fn available_capabilities(new_user_namespace: bool) -> Result<Capabilities> {
    let told = |source| Error::host("find out which capabilities there are", source);
    let mask = if new_user_namespace {
        let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap").map_err(told)?;
        let last: u32 = text.trim().parse().map_err(|_| told(io::ErrorKind::InvalidData.into()))?;
        u64::MAX >> (63 - last.min(63))
    } else {
        held().map_err(|errno| told(errno.into()))?
    };
    Ok(BY_NUMBER
        .into_iter()
        .enumerate()
        .filter(|(n, _)| mask & 1 << n != 0)
        .map(|(_, it)| it)
        .collect())
}

fn mask(set: &Option<Capabilities>) -> u64 {
    let numbers = set
        .iter()
        .flatten()
        .filter_map(|wanted| BY_NUMBER.iter().position(|known| known == wanted));
    numbers.fold(0, |mask, number| mask | 1 << number)
}

/// `linux/capability.h`, in its order.
static BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities in two words.
const VERSION_3: u32 = 0x2008_0522;

fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let word = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [word(0), word(32)];
    // SAFETY: version 3 reads one header and two data words; both outlive the call and are only read.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Makes all effective that the calling thread may have, and that a change of its ids has taken.
pub(crate) fn make_effective() -> Result<(), Errno> {
    let held = held()?;
    capset(held, held, 0)
}

/// The permitted set of the calling thread.
pub(crate) fn held() -> Result<u64, Errno> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and writes two data words; both are live and exclusively ours.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    Errno::result(result)?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

fn prctl(option: i32, argument: u64) -> Result<(), Errno> {
    prctl2(option, argument, 0)
}

fn prctl2(option: i32, second: u64, third: u64) -> Result<(), Errno> {
    // SAFETY: the options used here take integers only.
    Errno::result(unsafe { libc::prctl(option, second, third, 0u64, 0u64) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxCapabilitiesBuilder;
    use std::collections::HashSet;

    #[test]
    fn names_become_the_kernels_numbers() {
        let set: HashSet<_> =
            [Capability::Chown, Capability::SysAdmin, Capability::CheckpointRestore].into();
        let oci = LinuxCapabilitiesBuilder::default()
            .permitted(set.clone())
            .effective(set)
            .ambient(HashSet::new())
            .build()
            .unwrap();
        let sets = CapabilitySets::from_oci(&oci);
        assert_eq!(sets.permitted, 1 | 1 << 21 | 1 << 40);
        assert_eq!(sets.missing_from(1), ["CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]);
    }

    #[test]
    fn what_we_hold_is_what_proc_says() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
        assert_eq!(held().unwrap(), u64::from_str_radix(line.trim(), 16).unwrap());
    }
}
