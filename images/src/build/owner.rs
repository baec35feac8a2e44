//! `--chown=USER[:GROUP]`, by number or by the names of the image.

use std::io;

use super::merged::Merged;

/// The ids that `text` stands for. Without a group, the user's number is the group's too, as in
/// Docker.
pub(super) fn resolve(text: &str, image: &Merged) -> io::Result<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let uid = id(user, &image.read_text("etc/passwd")?).ok_or_else(|| unknown("user", user))?;
    let gid = match id(group, &image.read_text("etc/group")?) {
        Some(gid) => gid,
        // A user without a group of that name.
        None if !text.contains(':') => uid,
        None => return Err(unknown("group", group)),
    };
    Ok((uid, gid))
}

/// Both files have the number in the third field (passwd(5), group(5)).
fn id(name: &str, file: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let mut entries = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    entries.find(|fields| fields.len() > 2 && fields[0] == name)?[2].parse().ok()
}

fn unknown(what: &str, name: &str) -> io::Error {
    io::Error::other(format!("the image has no {what} `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_resolved_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("etc/passwd", "root:x:0:0::/:\nweb:x:33:40::/:\n");
        write("etc/group", "root:x:0:\nweb:x:34:\nlogs:x:50:\n");
        let image = Merged::new(vec![dir.path().to_owned()]);
        for (text, ids) in
            [("web", (33, 34)), ("web:logs", (33, 50)), ("7", (7, 7)), ("7:8", (7, 8))]
        {
            assert_eq!(resolve(text, &image).unwrap(), ids, "{text}");
        }
        for text in ["nobody", "web:none", "-1"] {
            assert!(resolve(text, &image).is_err(), "{text}");
        }
    }
}
