//! Locks of a guest's processes, as they and others see them.

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::protocol::{lock_type, opcode};
use super::testing::{Answer, Guest, Words, u32_at, u64_at, words};
use crate::virtio::VirtioDevice;

const END: u64 = i64::MAX as u64;
const GRANTED: Answer = Ok(Vec::new());

/// `struct fuse_lk_in`, of process 77.
fn lock(handle: u64, owner: u64, (start, end): (u64, u64), kind: u32) -> Words {
    words().u64(handle).u64(owner).u64(start).u64(end).u32(kind).u32(77).u32(0).u32(0)
}

fn write(handle: u64, owner: u64, range: (u64, u64)) -> Words {
    lock(handle, owner, range, lock_type::WRITE)
}

fn unlock(handle: u64, owner: u64, range: (u64, u64)) -> Words {
    lock(handle, owner, range, lock_type::UNLOCK)
}

/// A lock of a process of the host.
fn on_host(file: &File, kind: i32, start: i64) -> Result<(), Errno> {
    let lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: 10,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

fn host_file(guest: &Guest, name: &str) -> File {
    File::options().read(true).write(true).open(guest.path(name)).unwrap()
}

#[test]
fn a_lock_is_seen_by_the_host_by_another_guest_and_by_other_owners() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create("file", libc::O_RDWR).unwrap();
    let mut other = Guest::beside(&guest);
    let there = other.look_up(1, "file").unwrap();
    let theirs = other.open(there, libc::O_RDWR).unwrap();
    let host = host_file(&guest, "file");

    assert_eq!(guest.call(opcode::SETLK, node, &write(handle, 1, (0, 9))), GRANTED);
    assert_eq!(on_host(&host, libc::F_RDLCK, 5), Err(Errno::EAGAIN));
    assert_eq!(on_host(&host, libc::F_WRLCK, 10), Ok(()));
    let mut theirs = |range| other.call(opcode::SETLK, there, &write(theirs, 1, range));
    assert_eq!(theirs((9, END)), Err(libc::EAGAIN));
    assert_eq!(theirs((20, END)), GRANTED);
    assert_eq!(guest.call(opcode::SETLK, node, &write(handle, 2, (0, 0))), Err(libc::EAGAIN));
    // An owner is in nobody's way but others'.
    assert_eq!(guest.call(opcode::SETLK, node, &write(handle, 1, (5, 9))), GRANTED);
    let reads = lock(handle, 1, (0, 9), lock_type::READ);
    assert_eq!(guest.call(opcode::SETLK, node, &reads), GRANTED);
    assert_eq!(on_host(&host, libc::F_RDLCK, 0), Ok(()));
    assert_eq!(on_host(&host, libc::F_WRLCK, 0), Err(Errno::EAGAIN));
}

#[test]
fn who_asks_is_told_what_is_in_the_way_and_whose_it_is() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create("file", libc::O_RDWR).unwrap();
    let host = host_file(&guest, "file");
    let mut ask = |owner, range| {
        let found = guest.call(opcode::GETLK, node, &write(handle, owner, range)).unwrap();
        assert_eq!(found.len(), 24);
        (u64_at(&found, 0), u64_at(&found, 8), u32_at(&found, 16), u32_at(&found, 20))
    };
    assert_eq!(ask(1, (0, END)).2, lock_type::UNLOCK);
    on_host(&host, libc::F_RDLCK, 100).unwrap();
    // The number of a process of the host says nothing in the guest, and is not the guest's to know.
    assert_eq!(ask(1, (0, END)), (100, 109, lock_type::READ, 0));
    assert_eq!(ask(1, (0, 99)).2, lock_type::UNLOCK);
    drop(host);
    guest.call(opcode::SETLK, node, &write(handle, 1, (3, END))).unwrap();
    let mut ask = |owner| {
        let found = guest.call(opcode::GETLK, node, &write(handle, owner, (0, END))).unwrap();
        (u64_at(&found, 0), u64_at(&found, 8), u32_at(&found, 16), u32_at(&found, 20))
    };
    assert_eq!(ask(2), (3, END, lock_type::WRITE, 77));
    assert_eq!(ask(1).2, lock_type::UNLOCK, "its own");
}

#[test]
fn locks_go_with_the_close_of_their_owner_the_last_close_and_the_guest() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create("file", libc::O_RDWR).unwrap();
    let again = guest.open(node, libc::O_RDWR).unwrap();
    let host = host_file(&guest, "file");
    let is_free = || {
        let free = on_host(&host, libc::F_WRLCK, 0).is_ok();
        on_host(&host, libc::F_UNLCK, 0).unwrap();
        free
    };
    let take = |guest: &mut Guest, handle, owner| {
        assert_eq!(guest.call(opcode::SETLK, node, &write(handle, owner, (0, END))), GRANTED);
        assert!(!is_free());
    };
    let flush = |handle, owner| words().u64(handle).u32(0).u32(0).u64(owner);
    // A process that closes any descriptor of the file; not another one.
    take(&mut guest, handle, 1);
    assert_eq!(guest.call(opcode::FLUSH, node, &flush(again, 2)), GRANTED);
    assert!(!is_free());
    assert_eq!(guest.call(opcode::FLUSH, node, &flush(again, 1)), GRANTED);
    assert!(is_free());
    // An open file description, which is its own owner.
    take(&mut guest, again, 3);
    guest.call(opcode::RELEASE, node, &words().u64(handle).u64(0).u64(0)).unwrap();
    assert!(!is_free());
    guest.call(opcode::RELEASE, node, &words().u64(again).u64(0).u64(0)).unwrap();
    assert!(is_free());
    // Without the open file there is no lock.
    let late = guest.call(opcode::SETLK, node, &write(again, 1, (0, 9)));
    assert_eq!(late, Err(libc::EBADF));
    let handle = guest.open(node, libc::O_RDWR).unwrap();
    take(&mut guest, handle, 1);
    guest.device.reset();
    assert!(is_free());
}

#[test]
fn who_waits_gets_the_lock_when_it_is_free_and_others_go_on_meanwhile() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create("file", libc::O_RDWR).unwrap();
    assert_eq!(guest.call(opcode::SETLKW, node, &write(handle, 1, (0, 9))), GRANTED);
    // Of another owner in the guest, whose unlocking is seen at once.
    let waiting = guest.begin(opcode::SETLKW, node, &write(handle, 2, (5, 14)));
    guest.write(handle, 0, b"content", 0).unwrap();
    assert!(!guest.has_arrived(waiting));
    assert_eq!(guest.call(opcode::SETLK, node, &unlock(handle, 1, (0, 4))), GRANTED);
    assert!(!guest.has_arrived(waiting), "the lock of bytes 5 to 9 is still there");
    assert_eq!(guest.call(opcode::SETLK, node, &unlock(handle, 1, (0, 9))), GRANTED);
    assert_eq!(guest.later(waiting), GRANTED);
    // Of a process of the host.
    let host = host_file(&guest, "file");
    on_host(&host, libc::F_WRLCK, 20).unwrap();
    let waiting = guest.begin(opcode::SETLKW, node, &write(handle, 2, (20, 20)));
    assert_eq!(guest.read(handle, 0, 7).unwrap(), b"content");
    assert!(!guest.has_arrived(waiting));
    drop(host);
    assert_eq!(guest.later(waiting), GRANTED);
    // Who waits when the guest ends is in nobody's way.
    let waiting = guest.begin(opcode::SETLKW, node, &write(handle, 3, (5, 5)));
    assert!(guest.read(handle, 0, 1).is_ok() && !guest.has_arrived(waiting));
    guest.device.reset();
    on_host(&host_file(&guest, "file"), libc::F_WRLCK, 0).unwrap();
}

#[test]
fn two_that_would_wait_for_each_other_are_told() {
    let mut guest = Guest::new();
    let (a, of_a) = guest.create("a", libc::O_RDWR).unwrap();
    let (b, of_b) = guest.create("b", libc::O_RDWR).unwrap();
    let whole = (0, END);
    assert_eq!(guest.call(opcode::SETLK, a, &write(of_a, 1, whole)), GRANTED);
    assert_eq!(guest.call(opcode::SETLK, b, &write(of_b, 2, whole)), GRANTED);
    let waiting = guest.begin(opcode::SETLKW, b, &write(of_b, 1, whole));
    let other = guest.call(opcode::SETLKW, a, &write(of_a, 2, whole));
    assert_eq!(other, Err(libc::EDEADLK));
    // It gives up what it has, and the first goes on.
    assert_eq!(guest.call(opcode::SETLK, b, &unlock(of_b, 2, whole)), GRANTED);
    assert_eq!(guest.later(waiting), GRANTED);
}

#[test]
fn locks_that_make_no_sense_or_are_too_many_are_refused() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create("file", libc::O_RDWR).unwrap();
    for (arguments, error) in [
        (write(handle, 1, (1, 0)), libc::EINVAL),
        (write(handle, 1, (0, END + 1)), libc::EINVAL),
        (lock(handle, 1, (0, 0), 3), libc::EINVAL),
        (write(999, 1, (0, 0)), libc::EBADF),
        // Those of flock(2) are the guest's own.
        (words().u64(handle).u64(1).u64(0).u64(END).u32(1).u32(77).u32(1).u32(0), libc::EINVAL),
        (words().u64(handle), libc::EINVAL),
    ] {
        assert_eq!(guest.call(opcode::SETLK, node, &arguments), Err(error));
        assert!(guest.call(opcode::GETLK, node, &arguments).is_err());
    }
    let granted = (0..20_000u64)
        .take_while(|&at| {
            let range = (2 * at, 2 * at);
            match guest.call(opcode::SETLK, node, &write(handle, 1, range)) {
                Err(error) => {
                    assert_eq!(error, libc::ENOLCK);
                    false
                }
                granted => granted.is_ok(),
            }
        })
        .count();
    assert!((8000..9000).contains(&granted), "{granted}");
    assert_eq!(guest.call(opcode::SETLK, node, &unlock(handle, 1, (0, END))), GRANTED);
    assert_eq!(guest.call(opcode::SETLK, node, &write(handle, 1, (0, 0))), GRANTED);
}

#[test]
fn a_read_only_share_has_locks_for_reading() {
    let mut guest =
        Guest::with(|options| options.read_only = true, crate::backend::share::Budget::new(9));
    std::fs::write(guest.path("file"), "content").unwrap();
    let node = guest.look_up(1, "file").unwrap();
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    let reads = lock(handle, 1, (0, END), lock_type::READ);
    assert_eq!(guest.call(opcode::SETLK, node, &reads), GRANTED);
    assert_eq!(on_host(&host_file(&guest, "file"), libc::F_WRLCK, 0), Err(Errno::EAGAIN));
    assert_eq!(guest.call(opcode::SETLK, node, &write(handle, 1, (0, 0))), Err(libc::EBADF));
}
