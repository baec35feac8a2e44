//! The user of a workload: numbers, or names that the image's /etc/passwd and /etc/group know.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use crate::error::IsolationError;

/// Who a workload runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves `USER[:GROUP]` as the image specification has it (config.md, `User`). Empty is root.
pub(crate) fn resolve(user: &str, layers: &[PathBuf]) -> Result<Identity, IsolationError> {
    let passwd = read(layers, "etc/passwd")?;
    let group = read(layers, "etc/group")?;
    resolve_in(user, &passwd, &group)
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> Result<Identity, IsolationError> {
    let unknown = |why: &str| IsolationError::User { user: user.to_owned(), why: why.to_owned() };
    let (name, group_name) = match user.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 6 && (fields[0] == name || (number.is_some() && fields[2] == name))
    });
    let (login, uid, own_gid, home) = match (&entry, number) {
        (Some(fields), _) => {
            let id = |text: &str| text.parse().map_err(|_| unknown("/etc/passwd is damaged"));
            (fields[0], id(fields[2])?, id(fields[3])?, fields[5].to_owned())
        }
        // A number that nobody has: legal, in no group but root's, as with Docker and podman.
        (None, Some(uid)) => ("", uid, 0, "/".to_owned()),
        (None, None) => return Err(unknown("no such name in the image's /etc/passwd")),
    };
    let groups: Vec<Vec<&str>> = group.lines().map(|line| line.split(':').collect()).collect();
    let Some(group_name) = group_name else {
        let is_member = |fields: &&Vec<&str>| {
            fields.len() >= 4 && !login.is_empty() && fields[3].split(',').any(|m| m == login)
        };
        let additional_gids =
            groups.iter().filter(is_member).filter_map(|fields| fields[2].parse().ok()).collect();
        return Ok(Identity { uid, gid: own_gid, additional_gids, home });
    };
    let named = groups.iter().find(|fields| fields.len() >= 3 && fields[0] == group_name);
    let gid = match (named, group_name.parse::<u32>()) {
        (Some(fields), _) => fields[2].parse().map_err(|_| unknown("/etc/group is damaged"))?,
        (None, Ok(gid)) => gid,
        (None, Err(_)) => return Err(unknown("no such group in the image's /etc/group")),
    };
    Ok(Identity { uid, gid, additional_gids: Vec::new(), home })
}

/// The topmost layer's file, without following links out of the layer: an image whose
/// /etc/passwd is a link has no users but numbers.
fn read(layers: &[PathBuf], file: &str) -> Result<String, IsolationError> {
    for layer in layers {
        let path = layer.join(file);
        // A link anywhere on the way could lead to the host's file.
        let folder_is_real = fs::symlink_metadata(layer.join("etc")).is_ok_and(|m| m.is_dir());
        if !folder_is_real {
            continue;
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {
                let text = fs::read(&path);
                let text =
                    text.map_err(|source| IsolationError::Io { action: "read", path, source })?;
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            // A whiteout, a link or something stranger: no users.
            Ok(found) if found.file_type().is_char_device() && found.rdev() == 0 => break,
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(IsolationError::Io { action: "read", path, source }),
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:40:web,other\nssl:x:41:other\n";

    fn resolved(user: &str) -> (u32, u32, Vec<u32>, String) {
        let identity = resolve_in(user, PASSWD, GROUP).unwrap();
        (identity.uid, identity.gid, identity.additional_gids, identity.home)
    }

    #[test]
    fn names_and_numbers_find_their_entries() {
        assert_eq!(resolved(""), (0, 0, vec![], "/root".to_owned()));
        assert_eq!(resolved("web"), (33, 33, vec![40], "/var/www".to_owned()));
        assert_eq!(resolved("33"), (33, 33, vec![40], "/var/www".to_owned()));
        assert_eq!(resolved("web:logs"), (33, 40, vec![], "/var/www".to_owned()));
        assert_eq!(resolved("1234:56"), (1234, 56, vec![], "/".to_owned()));
    }

    #[test]
    fn unknown_names_are_errors() {
        for user in ["nobody-here", "web:nogroup", "-1"] {
            assert!(matches!(resolve_in(user, PASSWD, GROUP), Err(IsolationError::User { .. })));
        }
    }

    #[test]
    fn the_files_of_the_topmost_layer_count_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "bottom"].map(|name| dir.path().join(name)).to_vec();
        for layer in &layers {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(layers[1].join("etc/passwd"), "bottom").unwrap();
        assert_eq!(read(&layers, "etc/passwd").unwrap(), "bottom");
        std::os::unix::fs::symlink("/etc/passwd", layers[0].join("etc/passwd")).unwrap();
        assert_eq!(read(&layers, "etc/passwd").unwrap(), "");
    }
}
