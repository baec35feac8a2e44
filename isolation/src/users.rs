//! The user of a workload: numbers, or names that the image's /etc/passwd and /etc/group know.

use std::path::PathBuf;

use isolab_container::NO_ID;
use isolab_images::Merged;
use oci_spec::runtime::{User, UserBuilder};

use crate::error::IsolationError;

/// Who a workload runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group first: where it is not among them, a process that gives up its primary
    /// group has lost it (CVE-2022-2989, CVE-2022-36109).
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

impl Identity {
    /// Adds further groups.
    pub(crate) fn join(&mut self, groups: &[u32]) {
        for group in groups {
            if !self.groups.contains(group) {
                self.groups.push(*group);
            }
        }
    }

    /// In the words of the OCI runtime specification. Without root the kernel allows no groups but
    /// the caller's (user_namespaces(7), setgroups).
    pub(crate) fn to_user(&self) -> Result<User, IsolationError> {
        let is_root = nix::unistd::geteuid().is_root();
        let groups = if is_root { self.groups.clone() } else { Vec::new() };
        let user = UserBuilder::default().uid(self.uid).gid(self.gid).additional_gids(groups);
        user.build()
            .map_err(|error| IsolationError::Setting { field: "user", why: error.to_string() })
    }
}

/// Resolves groups, each by name or number.
pub(crate) fn resolve_groups(
    names: &[String],
    layers: &[PathBuf],
) -> Result<Vec<u32>, IsolationError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let text = read(&Merged::new(layers.to_vec()), "etc/group")?;
    let groups: Vec<Group> = text.lines().filter_map(Group::parse).collect();
    let one = |name: &String| {
        let refused = |why| IsolationError::Setting { field: "groups", why };
        let gid = match Wanted::parse(name).map_err(refused)? {
            Wanted::Number(gid) => Some(gid),
            Wanted::Name(name) => {
                groups.iter().find(|group| group.name == name).map(|group| group.gid)
            }
        };
        gid.filter(|gid| *gid != NO_ID)
            .ok_or_else(|| refused(format!("`{name}`: no such group in the image's /etc/group")))
    };
    names.iter().map(one).collect()
}

fn read(image: &Merged, file: &str) -> Result<String, IsolationError> {
    image.read_text(file).map_err(|source| IsolationError::Io {
        action: "read",
        path: PathBuf::from("/").join(file),
        source,
    })
}

/// Resolves `USER[:GROUP]` as the image specification has it (config.md, `User`). Empty is root.
pub(crate) fn resolve(user: &str, layers: &[PathBuf]) -> Result<Identity, IsolationError> {
    let image = Merged::new(layers.to_vec());
    resolve_in(user, &read(&image, "etc/passwd")?, &read(&image, "etc/group")?)
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> Result<Identity, IsolationError> {
    let refused = |why: String| IsolationError::User { user: user.to_owned(), why };
    let valid = |what: &str, id: u32| match id {
        NO_ID => Err(refused(format!("{what} {NO_ID} stands for none (-1)"))),
        id => Ok(id),
    };
    let (name, group_name) = match user.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name).filter(|name| !name.is_empty())),
        None => (user, None),
    };
    let name = Wanted::parse(if name.is_empty() { "0" } else { name }).map_err(refused)?;
    let account = passwd.lines().filter_map(Account::parse).find(|account| match name {
        Wanted::Number(uid) => account.uid == uid,
        Wanted::Name(name) => account.name == name,
    });
    let (login, uid, own_gid, home) = match (account, name) {
        (Some(account), _) => (account.name, account.uid, account.gid, account.home),
        // A number that nobody has: legal, in no group but root's, as with Docker and podman.
        (None, Wanted::Number(uid)) => ("", uid, 0, "/"),
        (None, Wanted::Name(_)) => {
            return Err(refused("no such name in the image's /etc/passwd".to_owned()));
        }
    };
    let groups: Vec<Group> = group.lines().filter_map(Group::parse).collect();
    let (gid, others) = match group_name.map(Wanted::parse).transpose().map_err(refused)? {
        None => {
            let is_member = |group: &&Group| {
                !login.is_empty() && group.members.split(',').any(|member| member == login)
            };
            // A group that cannot exist has no members.
            let gids = groups.iter().filter(is_member).map(|group| group.gid);
            (own_gid, gids.filter(|gid| *gid != NO_ID).collect())
        }
        Some(Wanted::Number(gid)) => (gid, Vec::new()),
        Some(Wanted::Name(name)) => match groups.iter().find(|group| group.name == name) {
            Some(group) => (group.gid, Vec::new()),
            None => return Err(refused("no such group in the image's /etc/group".to_owned())),
        },
    };
    let (uid, gid) = (valid("uid", uid)?, valid("gid", gid)?);
    let mut groups = vec![gid];
    groups.extend(others.into_iter().filter(|other| *other != gid));
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

/// What was asked for. A number is a number, also where a name is written like one, as in Docker
/// and podman: who writes `USER 1000` to be without privileges must not become root by an entry
/// `1000:x:0:0`.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Wanted::Name(text));
        }
        match text.parse() {
            Ok(number) if number != NO_ID => Ok(Wanted::Number(number)),
            _ => Err(format!("{text}: ids are 0 to {}", NO_ID - 1)),
        }
    }
}

/// A line of /etc/passwd (passwd(5)). A line that is too short or has no numbers is no account.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

/// A line of /etc/group (group(5)). One that is too short or has no number is no group.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "short\n::::::\nbad:x:none:0::/:\nroot:x:0:0:root:/root:/bin/sh\n\
        web:x:33:33:web:/var/www:/bin/false\n1000:x:0:0:a trap:/trap:\nbare:x:7:8\n\
        minus:x:4294967295:0::/:\nminusgroup:x:9:4294967295::/:\n";
    const GROUP: &str = "short\nbad:x:none:web\nroot:x:0:\nweb:x:33:web\nlogs:x:40:web,other\n\
        ssl:x:41:other\n55:x:0:\nminus:x:4294967295:web\n";

    #[test]
    fn users_groups_and_homes() {
        let table: [(&str, u32, u32, &[u32], &str); 12] = [
            ("", 0, 0, &[0], "/root"),
            (":", 0, 0, &[0], "/root"),
            ("web", 33, 33, &[33, 40], "/var/www"),
            ("web:", 33, 33, &[33, 40], "/var/www"),
            ("33", 33, 33, &[33, 40], "/var/www"),
            ("0033", 33, 33, &[33, 40], "/var/www"),
            ("web:logs", 33, 40, &[40], "/var/www"),
            ("bare", 7, 8, &[8], "/"),
            ("1234:56", 1234, 56, &[56], "/"),
            // Numbers, whatever the names.
            ("1000", 1000, 0, &[0], "/"),
            ("web:55", 33, 55, &[55], "/var/www"),
            ("4294967294:4294967294", 4_294_967_294, 4_294_967_294, &[4_294_967_294], "/"),
        ];
        for (user, uid, gid, groups, home) in table {
            let found = resolve_in(user, PASSWD, GROUP).unwrap();
            let wanted = Identity { uid, gid, groups: groups.into(), home: home.to_owned() };
            assert_eq!(found, wanted, "{user:?}");
        }
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for user in [
            "nobody-here",
            "web:nogroup",
            "-1",
            "+1000",
            "short",
            "bad",
            // setres[ug]id(2): -1 changes nothing, which leaves root.
            "4294967295",
            "1000:4294967295",
            "4294967295:4294967295",
            "minus",
            "minusgroup",
            "web:minus",
            "4294967296",
            "99999999999999999999",
            "0:4294967296",
        ] {
            let refused = resolve_in(user, PASSWD, GROUP);
            assert!(matches!(refused, Err(IsolationError::User { .. })), "{user}: {refused:?}");
        }
    }

    #[test]
    fn the_files_of_the_topmost_layer_count_and_links_stay_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "bottom"].map(|name| dir.path().join(name)).to_vec();
        for layer in &layers {
            std::fs::create_dir_all(layer.join("etc")).unwrap();
        }
        std::fs::write(layers[1].join("etc/passwd"), "x:x:5:6::/:\n").unwrap();
        assert_eq!(resolve("x", &layers).unwrap().uid, 5);
        // Of the host's file it would be found.
        std::os::unix::fs::symlink("/proc/../etc/passwd.real", layers[0].join("etc/passwd"))
            .unwrap();
        assert!(resolve("root", &layers).is_err());
        std::fs::write(layers[1].join("etc/passwd.real"), "y:x:7:8::/:\n").unwrap();
        assert_eq!(resolve("y", &layers).unwrap().uid, 7);
    }
}
