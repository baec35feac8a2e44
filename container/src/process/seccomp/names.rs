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

/// None if there is no such call.
pub(super) fn find(name: &str) -> Option<Numbers> {
    let line = &LINES[LINES.binary_search_by(|line| line.name().cmp(name)).ok()?];
    let [x86_64, i386, x32] =
        line.numbers.map(|number| (number != NO_NUMBER).then_some(number.into()));
    Some(Numbers { x86_64, i386, x32 })
}

/// Calls that i386 has behind one number as well, by the first argument: (name, of `socketcall`, argument).
/// `include/uapi/linux/net.h` and `include/uapi/linux/ipc.h`.
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let socket = SOCKET.iter().position(|known| *known == name);
    let ipc = || IPC.iter().find(|(known, _)| *known == name).map(|(_, number)| ("ipc", *number));
    socket.map(|at| ("socketcall", at as u64 + 1)).or_else(ipc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_agrees_with_the_c_library() {
        let names: Vec<&str> = LINES.iter().map(Line::name).collect();
        assert!(names.is_sorted() && names.len() > 460);
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
