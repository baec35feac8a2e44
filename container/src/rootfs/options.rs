//! Mount options: from the words of fstab(5) and the OCI specification to flags and data.

use nix::mount::MsFlags;

/// The options of one mount, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub flags: MsFlags,
    /// Propagation changes, applied after mounting, in order.
    pub propagation: Vec<MsFlags>,
    /// What the filesystem itself interprets.
    pub data: Vec<String>,
    /// Words that are known and not supported.
    pub unsupported: Vec<String>,
}

impl MountOptions {
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut options = MountOptions {
            flags: MsFlags::empty(),
            propagation: Vec::new(),
            data: Vec::new(),
            unsupported: Vec::new(),
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
        } else if let Some(propagation) = propagation(word) {
            self.propagation.push(propagation);
        } else if is_unsupported(word) {
            self.unsupported.push(word.to_owned());
        } else if !word.is_empty() && word != "defaults" {
            self.data.push(word.to_owned());
        }
    }
}

/// (whether the word clears the flag, the flag)
fn flag(word: &str) -> Option<(bool, MsFlags)> {
    Some(match word {
        "bind" => (false, MsFlags::MS_BIND),
        "rbind" => (false, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
        "ro" => (false, MsFlags::MS_RDONLY),
        "rw" => (true, MsFlags::MS_RDONLY),
        "nosuid" => (false, MsFlags::MS_NOSUID),
        "suid" => (true, MsFlags::MS_NOSUID),
        "nodev" => (false, MsFlags::MS_NODEV),
        "dev" => (true, MsFlags::MS_NODEV),
        "noexec" => (false, MsFlags::MS_NOEXEC),
        "exec" => (true, MsFlags::MS_NOEXEC),
        "sync" => (false, MsFlags::MS_SYNCHRONOUS),
        "async" => (true, MsFlags::MS_SYNCHRONOUS),
        "dirsync" => (false, MsFlags::MS_DIRSYNC),
        "mand" => (false, MsFlags::MS_MANDLOCK),
        "nomand" => (true, MsFlags::MS_MANDLOCK),
        "noatime" => (false, MsFlags::MS_NOATIME),
        "atime" => (true, MsFlags::MS_NOATIME),
        "nodiratime" => (false, MsFlags::MS_NODIRATIME),
        "diratime" => (true, MsFlags::MS_NODIRATIME),
        "relatime" => (false, MsFlags::MS_RELATIME),
        "norelatime" => (true, MsFlags::MS_RELATIME),
        "strictatime" => (false, MsFlags::MS_STRICTATIME),
        "nostrictatime" => (true, MsFlags::MS_STRICTATIME),
        "iversion" => (false, MsFlags::MS_I_VERSION),
        "noiversion" => (true, MsFlags::MS_I_VERSION),
        "silent" => (false, MsFlags::MS_SILENT),
        "loud" => (true, MsFlags::MS_SILENT),
        "remount" => (false, MsFlags::MS_REMOUNT),
        _ => return None,
    })
}

/// The propagation word, also the value of `linux.rootfsPropagation`.
pub(crate) fn propagation(word: &str) -> Option<MsFlags> {
    Some(match word {
        "private" => MsFlags::MS_PRIVATE,
        "rprivate" => MsFlags::MS_PRIVATE.union(MsFlags::MS_REC),
        "slave" => MsFlags::MS_SLAVE,
        "rslave" => MsFlags::MS_SLAVE.union(MsFlags::MS_REC),
        "shared" => MsFlags::MS_SHARED,
        "rshared" => MsFlags::MS_SHARED.union(MsFlags::MS_REC),
        "unbindable" => MsFlags::MS_UNBINDABLE,
        "runbindable" => MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC),
        _ => return None,
    })
}

fn is_unsupported(word: &str) -> bool {
    // mount_setattr(2), id-mapped mounts and runc's own extensions.
    let recursive =
        ["rro", "rrw", "rnosuid", "rsuid", "rnodev", "rdev", "rnoexec", "rexec", "rnoatime"];
    let others = [
        "idmap",
        "ridmap",
        "tmpcopyup",
        "nosymfollow",
        "rnosymfollow",
        "rrelatime",
        "rstrictatime",
    ];
    recursive.contains(&word) || others.contains(&word)
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
    fn the_last_word_wins() {
        assert!(parse(&["ro", "rw"]).flags.is_empty());
        assert_eq!(parse(&["exec", "noexec"]).flags, MsFlags::MS_NOEXEC);
    }

    #[test]
    fn what_we_cannot_do_is_not_passed_to_the_filesystem() {
        assert_eq!(parse(&["rro"]).unsupported, ["rro"]);
    }
}
