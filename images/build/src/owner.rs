//! `--chown=USER[:GROUP]`, by number or by the names of the image.

use std::io;

use isolab_images::Merged;

/// The ids that `text` stands for. Without a group, that is the user's own where the user is
/// named, and of the user's number else (Dockerfile reference, "COPY --chown").
pub(super) fn resolve(text: &str, image: &Merged) -> io::Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_gid) = match number(user) {
        Some(uid) => (uid?, uid?),
        None => {
            let entry = entry(user, &image.read_text("etc/passwd")?);
            let fields = entry.ok_or_else(|| unknown("user", user))?;
            let id = |field: usize| {
                let id = fields.get(field).and_then(|text| number(text)).and_then(Result::ok);
                id.ok_or_else(|| io::Error::other(format!("the image's user `{user}` has no ids")))
            };
            (id(2)?, id(3)?)
        }
    };
    let Some(group) = group else { return Ok((uid, own_gid)) };
    if let Some(gid) = number(group) {
        return Ok((uid, gid?));
    }
    let fields = entry(group, &image.read_text("etc/group")?);
    let gid = fields.as_ref().and_then(|fields| number(fields.get(2)?)?.ok());
    gid.map(|gid| (uid, gid)).ok_or_else(|| unknown("group", group))
}

/// None where the text is a name. chown(2) takes -1 for "as it is".
fn number(text: &str) -> Option<Result<u32, NoId>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().ok().filter(|id| *id != u32::MAX).ok_or(NoId))
}

/// A number that no user and no group can have.
#[derive(Clone, Copy, Debug)]
struct NoId;

impl From<NoId> for io::Error {
    fn from(_: NoId) -> Self {
        Self::other("ids go from 0 to 4294967294")
    }
}

/// Both files have the number in the third field (passwd(5), group(5)).
fn entry(name: &str, file: &str) -> Option<Vec<String>> {
    let mut entries = file.lines().map(|line| line.split(':').map(str::to_owned));
    entries.find_map(|mut fields| {
        (fields.next()? == name).then(|| std::iter::once(name.to_owned()).chain(fields).collect())
    })
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
        write("etc/passwd", "root:x:0:0::/:\nweb:x:33:40::/:\n7:x:1:1::/:\nshort:x\n");
        write("etc/group", "root:x:0:\nweb:x:34:\nlogs:x:50:\n");
        let image = Merged::new(vec![dir.path().to_owned()]);
        for (text, ids) in [
            ("web", (33, 40)),
            ("web:web", (33, 34)),
            ("web:logs", (33, 50)),
            ("7", (7, 7)),
            ("7:8", (7, 8)),
            ("4294967294", (4_294_967_294, 4_294_967_294)),
        ] {
            assert_eq!(resolve(text, &image).unwrap(), ids, "{text}");
        }
        let none = "4294967295";
        for text in ["nobody", "web:none", "-1", "short", "", none, &format!("0:{none}")] {
            assert!(resolve(text, &image).is_err(), "{text}");
        }
    }
}
