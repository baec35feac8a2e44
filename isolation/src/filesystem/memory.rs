//! The options of memory that is mounted: `PATH[:OPTIONS]`, as podman and Docker have it.

use crate::size::parse_size;

/// Words of mount(8), and options of tmpfs(5) that take a number.
const WORDS: [&str; 8] =
    ["exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "relatime"];
const NUMBERS: [&str; 4] = ["uid", "gid", "nr_inodes", "nr_blocks"];

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Further options, as the kernel has them.
    pub words: Vec<String>,
}

impl MemoryOptions {
    /// Takes options with commas between.
    ///
    /// # Errors
    /// The first that is none, or what it expects.
    pub fn take_all(&mut self, options: &str) -> Result<(), String> {
        options.split(',').filter(|word| !word.is_empty()).try_for_each(|word| self.take(word))
    }

    /// Takes one option.
    ///
    /// # Errors
    /// It is none, or what it expects.
    pub fn take(&mut self, word: &str) -> Result<(), String> {
        match word.split_once('=') {
            None if word == "ro" => self.read_only = true,
            None if word == "rw" => self.read_only = false,
            None if WORDS.contains(&word) => self.words.push(word.to_owned()),
            None if word == "tmpcopyup" => {
                return Err(
                    "tmpcopyup is not supported: what the image has there is hidden".to_owned()
                );
            }
            // What this is without it.
            None if word == "notmpcopyup" => {}
            Some(("size", size)) if size.ends_with('%') => self.words.push(word.to_owned()),
            Some(("size", size)) => self.words.push(format!("size={}", parse_size(size)?)),
            Some(("mode", text)) => self.words.push(format!("mode={:o}", mode(text)?)),
            Some((name, number)) if NUMBERS.contains(&name) => {
                if number.parse::<u32>().is_err() {
                    return Err(format!("{name}={}: expected a number", number.escape_debug()));
                }
                self.words.push(word.to_owned());
            }
            _ => return Err(format!("`{}` is no option of a tmpfs", word.escape_debug())),
        }
        Ok(())
    }
}

/// `1777` is octal, as `0o1777` and `01777` are: nobody writes modes otherwise.
fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("`{}`: expected a mode in octal", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_size_and_a_mode() {
        let read = |options: &str| {
            let mut memory = MemoryOptions::default();
            memory.take_all(options).map(|()| (memory.words.join(","), memory.read_only))
        };
        for (options, words, read_only) in [
            ("", "", false),
            ("size=64M,mode=1777,noexec,ro", "size=67108864,mode=1777,noexec", true),
            ("size=50%,,dev,ro,rw", "size=50%,dev", false),
            ("mode=0o700,uid=7,gid=8,notmpcopyup", "mode=700,uid=7,gid=8", false),
            ("nr_inodes=5,relatime", "nr_inodes=5,relatime", false),
        ] {
            assert_eq!(read(options), Ok((words.to_owned(), read_only)), "{options}");
        }
        for bad in [
            "size=",
            "size=x",
            "mode=9",
            "mode=17777",
            "uid=-1",
            "uid=root",
            "tmpcopyup",
            "huge",
            "speed=1",
            "ro=1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
