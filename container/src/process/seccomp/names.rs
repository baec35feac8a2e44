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

/// All calls, ready to be looked up.
pub(super) struct Names(Vec<(&'static str, &'static str)>);

impl Names {
    pub(super) fn new() -> Self {
        Names(TABLE.lines().filter_map(|line| line.split_once(' ')).collect())
    }

    /// None if there is no such call.
    pub(super) fn find(&self, name: &str) -> Option<Numbers> {
        let at = self.0.binary_search_by_key(&name, |(name, _)| name).ok()?;
        let mut numbers = self.0[at].1.split(' ').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Numbers { x86_64: next(), i386: next(), x32: next() })
    }
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
        let names = Names::new();
        assert!(names.0.is_sorted() && names.0.len() > 460);
        for (name, number) in [
            ("read", libc::SYS_read),
            ("keyctl", libc::SYS_keyctl),
            ("clone3", libc::SYS_clone3),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("fchmodat2", libc::SYS_fchmodat2),
        ] {
            assert_eq!(names.find(name).unwrap().x86_64, Some(number as u32), "{name}");
        }
        let execve = Numbers { x86_64: Some(59), i386: Some(11), x32: Some(520) };
        assert_eq!(names.find("execve"), Some(execve));
        assert_eq!(names.find("s390_pci_mmio_read"), None);
        assert!(names.find("bdflush").is_some_and(|one| one.x86_64.is_none()));
        // By `find`, every line has at least one number.
        for (name, _) in &names.0 {
            let one = names.find(name).unwrap();
            assert!(one.x86_64.or(one.i386).or(one.x32).is_some(), "{name}");
        }
    }
}
