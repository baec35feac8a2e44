//! Lines of /etc/hosts that the operator asks for (hosts(5)).

use isolab_guest::NameFile;

use super::HostEntry;

/// Adds the lines to the file, which is made where there is none.
pub(crate) fn add(files: &mut Vec<NameFile>, entries: &[HostEntry]) {
    if entries.is_empty() {
        return;
    }
    let lines: String = entries
        .iter()
        .map(|entry| format!("{}\t{}\n", entry.address, entry.names.join(" ")))
        .collect();
    match files.iter_mut().find(|file| file.name == "hosts") {
        // The first line with a name counts.
        Some(file) => file.content.insert_str(0, &lines),
        None => files.push(NameFile { name: "hosts".to_owned(), content: lines }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_comes_first() {
        let entry = |names: &[&str], address: &str| HostEntry {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            address: address.parse().unwrap(),
        };
        let entries = [entry(&["db", "data"], "10.0.0.9"), entry(&["six"], "fd00::1")];
        let content = "127.0.0.1\tlocalhost\n".to_owned();
        let mut files = vec![NameFile { name: "hosts".to_owned(), content }];
        add(&mut files, &[]);
        assert_eq!(files[0].content, "127.0.0.1\tlocalhost\n");
        add(&mut files, &entries);
        assert_eq!(files[0].content, "10.0.0.9\tdb data\nfd00::1\tsix\n127.0.0.1\tlocalhost\n");
        let mut none = Vec::new();
        add(&mut none, &entries);
        assert_eq!(none[0].content, "10.0.0.9\tdb data\nfd00::1\tsix\n");
    }
}
