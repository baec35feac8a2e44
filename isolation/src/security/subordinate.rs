//! Ranges of ids that the host's administrator lets a user map into user namespaces: subuid(5), subgid(5).

use std::path::Path;
use std::{env, fs};

use nix::unistd::{getegid, geteuid};

/// Ids next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first one, on the host.
    pub start: u32,
    /// How many there are.
    pub count: u32,
}

/// What ids of a user namespace stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The first one inside.
    pub inside: u32,
    /// The first one on the host.
    pub host: u32,
    /// How many there are.
    pub count: u32,
}

/// The caller's ranges, which its programs may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubordinateIds {
    /// User ids.
    pub users: Vec<IdRange>,
    /// Group ids.
    pub groups: Vec<IdRange>,
}

/// Why there are none, and what the host's root can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRanges {
    /// What is missing.
    pub why: String,
    /// The way out.
    pub hint: String,
}

const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
const TOOLS: [&str; 2] = ["newuidmap", "newgidmap"];

impl SubordinateIds {
    /// Those of the caller.
    ///
    /// # Errors
    /// There are none, or the setuid programs are missing that put them into a map.
    pub fn of_caller() -> Result<Self, NoRanges> {
        let uid = geteuid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = user_name(&passwd, uid).unwrap_or_default();
        let [users, groups] =
            FILES.map(|file| ranges(&fs::read_to_string(file).unwrap_or_default(), name, uid));
        for (file, ranges) in FILES.iter().zip([&users, &groups]) {
            if ranges.is_empty() {
                let whose = if name.is_empty() { uid.to_string() } else { name.to_owned() };
                return Err(NoRanges {
                    why: format!("{file} has no range of ids for {whose}"),
                    hint: format!(
                        "as root, `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {whose}` adds one"
                    ),
                });
            }
        }
        if let Some(tool) = TOOLS.into_iter().find(|tool| !is_on_path(tool)) {
            return Err(NoRanges {
                why: format!("{tool} is not on PATH"),
                hint: "install Debian's package uidmap".to_owned(),
            });
        }
        Ok(Self { users, groups })
    }

    /// Maps of user and group ids. The caller is `uid` and `gid` inside; all others are of the ranges.
    pub fn maps(&self, uid: u32, gid: u32) -> [Vec<IdMap>; 2] {
        [map(uid, geteuid().as_raw(), &self.users), map(gid, getegid().as_raw(), &self.groups)]
    }
}

/// Those of another user's name, of users and of groups.
pub(super) fn ranges_of(name: &str) -> [Vec<IdRange>; 2] {
    // No line is for the number, which is nobody's (-1).
    FILES.map(|file| ranges(&fs::read_to_string(file).unwrap_or_default(), name, u32::MAX))
}

/// The caller alone.
pub(super) fn single(inside: u32, host: u32) -> Vec<IdMap> {
    vec![mapping(inside, host, 1)]
}

/// `caller` at `inside`, and around it one id of the ranges after the other.
fn map(inside: u32, caller: u32, ranges: &[IdRange]) -> Vec<IdMap> {
    let mut maps = single(inside, caller);
    let mut next = 0;
    for IdRange { mut start, mut count } in ranges.iter().copied() {
        if next < inside {
            let below = count.min(inside - next);
            maps.push(mapping(next, start, below));
            (next, start, count) = (next + below, start + below, count - below);
        }
        if next == inside {
            next += 1;
        }
        let count = count.min(u32::MAX - next);
        if count > 0 {
            maps.push(mapping(next, start, count));
            next += count;
        }
    }
    maps
}

fn mapping(inside: u32, host: u32, count: u32) -> IdMap {
    IdMap { inside, host, count }
}

/// The name of `uid` in the text of an /etc/passwd.
fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The ranges of a user, by name or number, in the text of a subuid(5) file. What is no range is left out, as is
/// what would reach root or beyond the last id.
fn ranges(text: &str, name: &str, uid: u32) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        let is_own = (!name.is_empty() && whose == name) || whose.parse() == Ok(uid);
        let (start, count): (u32, u32) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_range = start > 0 && count > 0 && start.checked_add(count).is_some();
        (is_own && is_range && fields.next().is_none()).then_some(IdRange { start, count })
    };
    text.lines().filter_map(range).collect()
}

fn is_on_path(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| Path::new(&folder).join(tool).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_user_s_own_and_whole() {
        let text = "# no line\nann:100000:65536\nbob:200000:65536\n1000:300000:10\nann:0:5\n\
                    ann:4294967000:1000\nann:1:x\nann:7\nann:1:2:3\nann:5:0\n";
        let range = |start, count| IdRange { start, count };
        assert_eq!(ranges(text, "ann", 1000), [range(100_000, 65536), range(300_000, 10)]);
        assert_eq!(ranges(text, "", 1000), [range(300_000, 10)]);
        assert_eq!(ranges(text, "eve", 5), []);
        assert_eq!(user_name("root:x:0:0::/:\nann:x:1000:1000::/:\n", 1000), Some("ann"));
        assert_eq!(user_name(":x:5:5::/:\nshort\n", 5), None);
    }

    #[test]
    fn the_caller_is_at_its_place_and_the_ranges_are_around_it() {
        let ranges =
            [IdRange { start: 100_000, count: 1005 }, IdRange { start: 300_000, count: 10 }];
        let lines = |inside| -> Vec<(u32, u32, u32)> {
            map(inside, 42, &ranges).iter().map(|map| (map.inside, map.host, map.count)).collect()
        };
        assert_eq!(lines(0), [(0, 42, 1), (1, 100_000, 1005), (1006, 300_000, 10)]);
        assert_eq!(
            lines(1000),
            [(1000, 42, 1), (0, 100_000, 1000), (1001, 101_000, 5), (1006, 300_000, 10)]
        );
        assert_eq!(
            lines(1010),
            [(1010, 42, 1), (0, 100_000, 1005), (1005, 300_000, 5), (1011, 300_005, 5)]
        );
    }
}
