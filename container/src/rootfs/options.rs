//! Mount options: from the words of fstab(5) and the OCI specification to flags and data.

use nix::mount::MsFlags;

/// The options of one mount, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub flags: MsFlags,
    /// Flags that a word says not to have.
    pub cleared: MsFlags,
    /// Attributes of all mounts of a tree.
    pub recursive: Attributes,
    /// A tmpfs begins with what it is mounted over.
    pub copy_up: bool,
    /// Ids are mapped, in the mount alone or in all of its tree.
    pub id_mapped: Option<Extent>,
    /// Propagation changes, applied after mounting, in order.
    pub propagation: Vec<MsFlags>,
    /// What the filesystem itself interprets.
    pub data: Vec<String>,
}

/// How much of a tree of mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Mount,
    Tree,
}

/// `MOUNT_ATTR_*`, to be set and cleared by mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub set: u64,
    pub clear: u64,
}

/// The kernel's; the nix crate has no name for it.
const NO_SYMBOLIC_LINKS: MsFlags = MsFlags::from_bits_retain(256);

impl MountOptions {
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut options = MountOptions {
            flags: MsFlags::empty(),
            cleared: MsFlags::empty(),
            recursive: Attributes::default(),
            copy_up: false,
            id_mapped: None,
            propagation: Vec::new(),
            data: Vec::new(),
        };
        for word in words {
            options.take(word);
        }
        options
    }

    pub(crate) fn is_bind(&self) -> bool {
        self.flags.contains(MsFlags::MS_BIND)
    }

    fn take(&mut self, word: &str) {
        if let Some((clear, flag)) = flag(word) {
            self.flags.set(flag, !clear);
            self.cleared.set(flag, clear);
        } else if let Some(propagation) = propagation(word) {
            self.propagation.push(propagation);
        } else if let Some(attribute) = word.strip_prefix('r').and_then(attribute) {
            self.recursive.take(attribute);
        } else if word == "tmpcopyup" {
            self.copy_up = true;
        } else if word == "idmap" {
            self.id_mapped = Some(Extent::Mount);
        } else if word == "ridmap" {
            self.id_mapped = Some(Extent::Tree);
        } else if !word.is_empty() && word != "defaults" {
            self.data.push(word.to_owned());
        }
    }
}

/// A word, whether it clears the flag, the flag.
const FLAGS: [(&str, bool, MsFlags); 30] = [
    ("bind", false, MsFlags::MS_BIND),
    ("rbind", false, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
    ("ro", false, MsFlags::MS_RDONLY),
    ("rw", true, MsFlags::MS_RDONLY),
    ("nosuid", false, MsFlags::MS_NOSUID),
    ("suid", true, MsFlags::MS_NOSUID),
    ("nodev", false, MsFlags::MS_NODEV),
    ("dev", true, MsFlags::MS_NODEV),
    ("noexec", false, MsFlags::MS_NOEXEC),
    ("exec", true, MsFlags::MS_NOEXEC),
    ("sync", false, MsFlags::MS_SYNCHRONOUS),
    ("async", true, MsFlags::MS_SYNCHRONOUS),
    ("dirsync", false, MsFlags::MS_DIRSYNC),
    ("mand", false, MsFlags::MS_MANDLOCK),
    ("nomand", true, MsFlags::MS_MANDLOCK),
    ("noatime", false, MsFlags::MS_NOATIME),
    ("atime", true, MsFlags::MS_NOATIME),
    ("nodiratime", false, MsFlags::MS_NODIRATIME),
    ("diratime", true, MsFlags::MS_NODIRATIME),
    ("relatime", false, MsFlags::MS_RELATIME),
    ("norelatime", true, MsFlags::MS_RELATIME),
    ("strictatime", false, MsFlags::MS_STRICTATIME),
    ("nostrictatime", true, MsFlags::MS_STRICTATIME),
    ("iversion", false, MsFlags::MS_I_VERSION),
    ("noiversion", true, MsFlags::MS_I_VERSION),
    ("silent", false, MsFlags::MS_SILENT),
    ("loud", true, MsFlags::MS_SILENT),
    ("remount", false, MsFlags::MS_REMOUNT),
    ("nosymfollow", false, NO_SYMBOLIC_LINKS),
    ("symfollow", true, NO_SYMBOLIC_LINKS),
];

/// (whether the word clears the flag, the flag)
fn flag(word: &str) -> Option<(bool, MsFlags)> {
    FLAGS.iter().find(|(known, ..)| *known == word).map(|(_, clear, flag)| (*clear, *flag))
}

const PROPAGATIONS: [(&str, MsFlags); 8] = [
    ("private", MsFlags::MS_PRIVATE),
    ("rprivate", MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
    ("slave", MsFlags::MS_SLAVE),
    ("rslave", MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
    ("shared", MsFlags::MS_SHARED),
    ("rshared", MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
    ("unbindable", MsFlags::MS_UNBINDABLE),
    ("runbindable", MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
];

/// The propagation word, also the value of `linux.rootfsPropagation`.
pub(crate) fn propagation(word: &str) -> Option<MsFlags> {
    PROPAGATIONS.iter().find(|(known, _)| *known == word).map(|(_, flags)| *flags)
}

/// What is neither a flag nor an attribute: what [`MountOptions::take`] does with each, is there.
const OTHERS: [&str; 4] = ["tmpcopyup", "idmap", "ridmap", "defaults"];

/// All words of mount options that the runtime itself understands; others are the file system's.
pub fn mount_options() -> Vec<String> {
    let flags = FLAGS.iter().map(|(word, ..)| (*word).to_owned());
    let recursive = FLAGS.iter().filter(|(word, ..)| attribute(word).is_some());
    let recursive = recursive.map(|(word, ..)| format!("r{word}"));
    let propagations = PROPAGATIONS.iter().map(|(word, _)| (*word).to_owned());
    let mut all: Vec<String> =
        flags.chain(recursive).chain(propagations).chain(OTHERS.map(String::from)).collect();
    all.sort();
    all
}

impl Attributes {
    fn take(&mut self, Attributes { set, clear }: Attributes) {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear & !set) | clear;
        // The kernel wants all bits of the times cleared when any of them is to be set.
        if self.clear & libc::MOUNT_ATTR__ATIME != 0 || set & libc::MOUNT_ATTR__ATIME != 0 {
            self.clear |= libc::MOUNT_ATTR__ATIME;
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Attributes::default()
    }
}

/// The attribute that a word, without the `r` before it, sets or clears (OCI config.md, "Linux mount options").
fn attribute(word: &str) -> Option<Attributes> {
    let set = |set| Some(Attributes { set, clear: 0 });
    let clear = |clear| Some(Attributes { set: 0, clear });
    match word {
        "ro" => set(libc::MOUNT_ATTR_RDONLY),
        "rw" => clear(libc::MOUNT_ATTR_RDONLY),
        "nosuid" => set(libc::MOUNT_ATTR_NOSUID),
        "suid" => clear(libc::MOUNT_ATTR_NOSUID),
        "nodev" => set(libc::MOUNT_ATTR_NODEV),
        "dev" => clear(libc::MOUNT_ATTR_NODEV),
        "noexec" => set(libc::MOUNT_ATTR_NOEXEC),
        "exec" => clear(libc::MOUNT_ATTR_NOEXEC),
        "nodiratime" => set(libc::MOUNT_ATTR_NODIRATIME),
        "diratime" => clear(libc::MOUNT_ATTR_NODIRATIME),
        "nosymfollow" => set(libc::MOUNT_ATTR_NOSYMFOLLOW),
        "symfollow" => clear(libc::MOUNT_ATTR_NOSYMFOLLOW),
        "noatime" => set(libc::MOUNT_ATTR_NOATIME),
        "strictatime" => set(libc::MOUNT_ATTR_STRICTATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => clear(libc::MOUNT_ATTR__ATIME),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> MountOptions {
        MountOptions::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_data_and_propagation_are_told_apart() {
        let options = parse(&["rbind", "ro", "rslave", "mode=755", "size=64k", "defaults"]);
        assert_eq!(options.flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert_eq!(options.propagation, [MsFlags::MS_SLAVE | MsFlags::MS_REC]);
        assert_eq!(options.data, ["mode=755", "size=64k"]);
    }

    #[test]
    fn what_is_told_to_be_understood_is_no_data() {
        let all = mount_options();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        assert!(
            all.contains(&"rstrictatime".to_owned()) && all.contains(&"runbindable".to_owned())
        );
        for word in &all {
            let options = MountOptions::parse(std::slice::from_ref(word));
            let nothing = MountOptions::parse(&[]);
            assert!(options.data.is_empty(), "{word}");
            assert!(options != nothing || word == "defaults", "{word}");
        }
    }

    #[test]
    fn the_last_word_wins() {
        assert!(parse(&["ro", "rw"]).flags.is_empty());
        assert_eq!(parse(&["exec", "noexec"]).flags, MsFlags::MS_NOEXEC);
    }

    #[test]
    fn recursive_words_are_attributes_and_nothing_of_the_filesystem() {
        let options = parse(&["rro", "rnodev", "rdev", "rstrictatime", "ridmap", "tmpcopyup"]);
        let times = libc::MOUNT_ATTR__ATIME;
        let expected = Attributes {
            set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_STRICTATIME,
            clear: libc::MOUNT_ATTR_NODEV | times,
        };
        assert_eq!(options.recursive, expected);
        assert_eq!((options.id_mapped, options.copy_up), (Some(Extent::Tree), true));
        assert!(options.data.is_empty() && options.flags.is_empty());
        // Relative times are the ones without a bit.
        let relative = Attributes { set: 0, clear: times };
        assert_eq!(parse(&["rrelatime"]).recursive, relative);
    }

    #[test]
    fn what_is_said_not_to_be_is_known() {
        assert_eq!(parse(&["dev", "rw"]).cleared, MsFlags::MS_NODEV | MsFlags::MS_RDONLY);
        assert_eq!(parse(&["dev", "nodev"]).cleared, MsFlags::empty());
    }
}
