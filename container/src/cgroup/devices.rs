//! Which devices a container may make, read and write: `linux.resources.devices`, what every container may use, and
//! what the configuration puts into its `/dev`.
//!
//! The rules are kept as both enforcers want them: a default, and exceptions of which the last that matches decides.

use nix::sys::stat::{SFlag, major, minor};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::CgroupError;
use crate::error::{Error, Result};

/// `BPF_DEVCG_ACC_*` of `linux/bpf.h`: what version 2's programs are asked about.
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL_ACCESS: u8 = MKNOD | READ | WRITE;

/// A kind of device; the values are `BPF_DEVCG_DEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Character = 2,
}

/// One exception. None stands for any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub allow: bool,
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u8,
}

/// What is decided about a device that no exception matches, and the exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRules {
    pub(super) allow_by_default: bool,
    pub(super) exceptions: Vec<Rule>,
}

/// What runc, too, lets every container use, whatever its configuration says: nodes may be made, which opens none of
/// them; null, zero, full, random, urandom, tty, ptmx and the pseudo-terminals of /dev/pts may be used. Not
/// /dev/console: inside, that is a pseudo-terminal, and 5:1 is the host's.
const ALWAYS: [Rule; 10] = [
    allow(Kind::Character, None, None, MKNOD),
    allow(Kind::Block, None, None, MKNOD),
    allow(Kind::Character, Some(1), Some(3), ALL_ACCESS),
    allow(Kind::Character, Some(1), Some(5), ALL_ACCESS),
    allow(Kind::Character, Some(1), Some(7), ALL_ACCESS),
    allow(Kind::Character, Some(1), Some(8), ALL_ACCESS),
    allow(Kind::Character, Some(1), Some(9), ALL_ACCESS),
    allow(Kind::Character, Some(5), Some(0), ALL_ACCESS),
    allow(Kind::Character, Some(5), Some(2), ALL_ACCESS),
    allow(Kind::Character, Some(136), None, ALL_ACCESS),
];

const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind, major, minor, access }
}

impl DeviceRules {
    /// `nodes`: type and number of the devices that the configuration makes. They may be used unless `configured`,
    /// which comes after them, denies it.
    pub(crate) fn new(
        nodes: impl Iterator<Item = (SFlag, libc::dev_t)>,
        configured: &[LinuxDeviceCgroup],
    ) -> Result<Self> {
        let mut rules = DeviceRules { allow_by_default: false, exceptions: Vec::new() };
        for (kind, number) in nodes {
            let kind = match kind {
                SFlag::S_IFBLK => Kind::Block,
                SFlag::S_IFCHR => Kind::Character,
                // A FIFO.
                _ => continue,
            };
            // The kernel's device numbers have 12 and 20 bits.
            let (major, minor) = (major(number) as u32, minor(number) as u32);
            rules.exceptions.push(allow(kind, Some(major), Some(minor), ALL_ACCESS));
        }
        for (index, rule) in configured.iter().enumerate() {
            rules.add(rule, &format!("linux.resources.devices[{index}]"))?;
        }
        rules.exceptions.extend(ALWAYS);
        Ok(rules)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup, field: &str) -> Result<()> {
        let access = access(rule.access().as_deref(), field)?;
        let (major, minor) = (number(rule.major(), field)?, number(rule.minor(), field)?);
        let kinds: &[Kind] = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => &[Kind::Block, Kind::Character],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Character],
            LinuxDeviceType::P => return Err(Error::invalid(field, "a FIFO is no device")),
        };
        if kinds.len() == 2 && (major, minor, access) == (None, None, ALL_ACCESS) {
            *self = DeviceRules { allow_by_default: rule.allow(), exceptions: Vec::new() };
            return Ok(());
        }
        let one = |kind| Rule { allow: rule.allow(), kind, major, minor, access };
        self.exceptions.extend(kinds.iter().copied().map(one));
        Ok(())
    }

    /// The writes to version 1's `devices.deny` and `devices.allow`, in order.
    ///
    /// That controller keeps a default and a list of exceptions to it. A rule that says the default again takes the
    /// very same device from the list, or does nothing (devices.rst); one that was to carve a part out of an
    /// exception would be lost, and is refused.
    pub(super) fn version_1(&self) -> Result<Vec<(&'static str, String)>, CgroupError> {
        let file = |allow| if allow { "devices.allow" } else { "devices.deny" };
        let mut writes = vec![(file(self.allow_by_default), "a".to_owned())];
        for (index, rule) in self.exceptions.iter().enumerate() {
            let lost = |earlier: &Rule| {
                earlier.allow != rule.allow
                    && earlier.overlaps(rule)
                    && !earlier.is_same_device(rule)
            };
            if rule.allow == self.allow_by_default && self.exceptions[..index].iter().any(lost) {
                return Err(CgroupError::Unsupported {
                    field: "devices",
                    on: "on cgroup v1 where a rule takes back a part of an earlier one",
                });
            }
            writes.push((file(rule.allow), rule.to_string()));
        }
        Ok(writes)
    }
}

impl Rule {
    fn is_same_device(&self, other: &Rule) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Whether this one, coming after `other`, decides all that `other` is about.
    pub(super) fn covers(&self, other: &Rule) -> bool {
        let any_or = |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || mine == theirs;
        self.kind == other.kind
            && any_or(self.major, other.major)
            && any_or(self.minor, other.minor)
            && self.access & other.access == other.access
    }

    fn overlaps(&self, other: &Rule) -> bool {
        let number = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind
            && number(self.major, other.major)
            && number(self.minor, other.minor)
            && self.access & other.access != 0
    }
}

/// As version 1 reads it: `c 1:3 rwm`, `b *:* m`.
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = [(READ, "r"), (WRITE, "w"), (MKNOD, "m")];
        letters
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .try_for_each(|(_, l)| f.write_str(l))
    }
}

/// An absent access is every access.
fn access(letters: Option<&str>, field: &str) -> Result<u8> {
    let Some(letters) = letters.filter(|letters| !letters.is_empty()) else {
        return Ok(ALL_ACCESS);
    };
    letters.chars().try_fold(0, |access, letter| match letter {
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        'm' => Ok(access | MKNOD),
        _ => Err(Error::invalid(field, format!("access {letters:?}: r, w and m are known"))),
    })
}

/// Absent or -1 is any number, as in runc.
fn number(number: Option<i64>, field: &str) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        // Within the positive numbers of the immediates of version 2's programs.
        Some(number) => match i32::try_from(number) {
            Ok(number @ 0..) => Ok(Some(number as u32)),
            _ => Err(Error::invalid(field, format!("{number} is no device number"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn oci(allow: bool, typ: &str, numbers: [i64; 2], access: &str) -> LinuxDeviceCgroup {
        let rule = serde_json::json!({
            "allow": allow, "type": typ, "major": numbers[0], "minor": numbers[1], "access": access
        });
        serde_json::from_value(rule).unwrap()
    }

    fn written(configured: &[LinuxDeviceCgroup]) -> Result<Vec<String>, String> {
        let node = [(SFlag::S_IFBLK, makedev(7, 1)), (SFlag::S_IFIFO, 0)];
        let rules = DeviceRules::new(node.into_iter(), configured).map_err(|e| e.to_string())?;
        let writes = rules.version_1().map_err(|e| e.to_string())?;
        let own = writes.len() - ALWAYS.len();
        Ok(writes[..own].iter().map(|(file, text)| format!("{file}: {text}")).collect())
    }

    #[test]
    fn everything_is_denied_but_what_is_configured_and_what_all_have() {
        assert_eq!(written(&[]).unwrap(), ["devices.deny: a", "devices.allow: b 7:1 rwm"]);
        let rules = DeviceRules::new(std::iter::empty(), &[]).unwrap().version_1().unwrap();
        let texts: Vec<_> = rules.iter().map(|(_, text)| text.as_str()).collect();
        assert!(texts.contains(&"c *:* m") && texts.contains(&"c 136:* rwm"), "{texts:?}");
        assert!(!texts.contains(&"c 5:1 rwm"), "the host's console");
    }

    #[test]
    fn rules_of_the_configuration_count_in_their_order() {
        // What `runc spec` writes takes the nodes with it, as there.
        let deny_all = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm");
        let deny_all = deny_all.build().unwrap();
        assert_eq!(written(std::slice::from_ref(&deny_all)).unwrap(), ["devices.deny: a"]);
        let fuse = oci(true, "c", [10, 229], "rw");
        let expected = ["devices.deny: a", "devices.allow: c 10:229 rw"];
        assert_eq!(written(&[deny_all, fuse]).unwrap(), expected);
        let any_read = oci(true, "a", [-1, -1], "r");
        let both = ["devices.allow: b *:* r", "devices.allow: c *:* r"];
        assert_eq!(written(&[any_read]).unwrap()[2..], both);
    }

    #[test]
    fn what_version_1_would_lose_is_refused() {
        let disks = oci(true, "b", [8, -1], "rwm");
        let but_this = oci(false, "b", [8, 0], "rwm");
        let error = written(&[disks.clone(), but_this]).unwrap_err();
        assert!(error.contains("cgroup v1"), "{error}");
        assert!(written(&[disks.clone(), oci(false, "b", [8, -1], "w")]).is_ok());
        assert!(written(&[disks, oci(false, "c", [8, 0], "rwm")]).is_ok());
    }

    #[test]
    fn nonsense_is_refused_by_its_field() {
        for rule in
            [oci(true, "c", [-2, 0], "r"), oci(true, "c", [1, 1], "x"), oci(true, "p", [1, 1], "r")]
        {
            let error = written(&[rule]).unwrap_err();
            assert!(error.contains("linux.resources.devices[0]"), "{error}");
        }
    }
}
