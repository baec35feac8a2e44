//! System calls by name.

/// Name, then the number on x86-64, i386, and x32 without its bit; `-` where it has none. Of
/// `arch/x86/entry/syscalls/syscall_{64,32}.tbl` of Linux 6.17. Sorted by name.
const TABLE: &str = include_str!("syscalls.tbl");

/// The numbers of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub x86_64: Option<u32>,
    pub i386: Option<u32>,
    pub x32: Option<u32>,
}

/// A line of the table, read when this is compiled: a profile asks for some 400 of them.
#[derive(Clone, Copy)]
struct Line {
    /// Where its name begins and ends.
    name: (u16, u16),
    /// `NO_NUMBER` where there is none.
    numbers: [u16; 3],
}

const NO_NUMBER: u16 = u16::MAX;

static LINES: [Line; count()] = lines();

const fn count() -> usize {
    let (text, mut at, mut count) = (TABLE.as_bytes(), 0, 0);
    while at < text.len() {
        count += (text[at] == b'\n') as usize;
        at += 1;
    }
    count
}

const fn lines() -> [Line; count()] {
    assert!(TABLE.len() <= u16::MAX as usize);
    let text = TABLE.as_bytes();
    let mut lines = [Line { name: (0, 0), numbers: [NO_NUMBER; 3] }; count()];
    let (mut at, mut line) = (0, 0);
    while line < lines.len() {
        let start = at;
        while text[at] != b' ' {
            at += 1;
        }
        lines[line].name = (start as u16, at as u16);
        let mut column = 0;
        while column < 3 {
            // A space before, and behind the last one the line's end.
            at += 1;
            if text[at] == b'-' {
                at += 1;
            } else {
                let mut number = 0;
                while text[at].is_ascii_digit() {
                    number = number * 10 + (text[at] - b'0') as u16;
                    at += 1;
                }
                lines[line].numbers[column] = number;
            }
            column += 1;
        }
        assert!(text[at] == b'\n');
        at += 1;
        line += 1;
    }
    lines
}

impl Line {
    fn name(&self) -> &'static str {
        &TABLE[self.name.0.into()..self.name.1.into()]
    }
}

/// Lines by the hash of their names; the next free place where there is one already. A third of the places is used.
static PLACES: [u16; 2048] = places();

/// No line is there.
const FREE: u16 = u16::MAX;

const fn places() -> [u16; 2048] {
    let mut places = [FREE; 2048];
    let mut line = 0;
    while line < LINES.len() {
        let (start, end) = LINES[line].name;
        let mut at = hash(TABLE.as_bytes(), start as usize, end as usize) % places.len();
        while places[at] != FREE {
            at = (at + 1) % places.len();
        }
        places[at] = line as u16;
        line += 1;
    }
    places
}

/// FNV-1a.
const fn hash(text: &[u8], mut at: usize, end: usize) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    while at < end {
        hash = (hash ^ text[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash as usize
}

/// None if there is no such call.
pub(super) fn find(name: &str) -> Option<Numbers> {
    let mut at = hash(name.as_bytes(), 0, name.len()) % PLACES.len();
    let line = loop {
        let line = LINES.get(usize::from(PLACES[at]))?;
        if line.name() == name {
            break line;
        }
        at = (at + 1) % PLACES.len();
    };
    let [x86_64, i386, x32] =
        line.numbers.map(|number| (number != NO_NUMBER).then_some(number.into()));
    Some(Numbers { x86_64, i386, x32 })
}

/// Calls that i386 has behind another one as well, by that one's first argument: (name, the other, argument). Sorted by
/// name. `include/uapi/linux/net.h` and `include/uapi/linux/ipc.h`.
const MULTIPLEXED: [(&str, &str, u64); 32] = [
    ("accept", "socketcall", 5),
    ("accept4", "socketcall", 18),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("getpeername", "socketcall", 7),
    ("getsockname", "socketcall", 6),
    ("getsockopt", "socketcall", 15),
    ("listen", "socketcall", 4),
    ("msgctl", "ipc", 14),
    ("msgget", "ipc", 13),
    ("msgrcv", "ipc", 12),
    ("msgsnd", "ipc", 11),
    ("recv", "socketcall", 10),
    ("recvfrom", "socketcall", 12),
    ("recvmmsg", "socketcall", 19),
    ("recvmsg", "socketcall", 17),
    ("semctl", "ipc", 3),
    ("semget", "ipc", 2),
    ("semop", "ipc", 1),
    ("semtimedop", "ipc", 4),
    ("send", "socketcall", 9),
    ("sendmmsg", "socketcall", 20),
    ("sendmsg", "socketcall", 16),
    ("sendto", "socketcall", 11),
    ("setsockopt", "socketcall", 14),
    ("shmat", "ipc", 21),
    ("shmctl", "ipc", 24),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shutdown", "socketcall", 13),
    ("socket", "socketcall", 1),
    ("socketpair", "socketcall", 8),
];

/// What i386 has a call behind as well: that call's name, and its first argument then.
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    let at = MULTIPLEXED.binary_search_by(|(known, ..)| (*known).cmp(name)).ok()?;
    let (_, through, argument) = MULTIPLEXED[at];
    Some((through, argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_agrees_with_the_c_library() {
        let names: Vec<&str> = LINES.iter().map(Line::name).collect();
        assert!(names.is_sorted() && names.len() > 460);
        assert!(MULTIPLEXED.is_sorted() && multiplexed("accept") == Some(("socketcall", 5)));
        for (name, number) in [
            ("read", libc::SYS_read),
            ("keyctl", libc::SYS_keyctl),
            ("clone3", libc::SYS_clone3),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("fchmodat2", libc::SYS_fchmodat2),
        ] {
            assert_eq!(find(name).unwrap().x86_64, Some(number as u32), "{name}");
        }
        let execve = Numbers { x86_64: Some(59), i386: Some(11), x32: Some(520) };
        assert_eq!(find("execve"), Some(execve));
        assert_eq!(find("s390_pci_mmio_read"), None);
        assert!(find("bdflush").is_some_and(|one| one.x86_64.is_none()));
        for name in names {
            let one = find(name).unwrap();
            assert!(one.x86_64.or(one.i386).or(one.x32).is_some(), "{name}");
        }
    }
}
