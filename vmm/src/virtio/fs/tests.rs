//! The device as a guest sees it, from right requests to hostile ones.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;

use nix::libc;

use super::protocol::{init, opcode, open, set};
use super::testing::{Guest, Words, cached, u32_at, u64_at, words};
use crate::backend::share::{Budget, CachePolicy};
use crate::poison::unpoisoned;
use crate::virtio::VirtioDevice;
use crate::virtio::testing::{readable, writable};

#[test]
fn the_configuration_has_the_tag_and_the_number_of_queues() {
    let guest = Guest::new();
    let mut config = [0xff; 44];
    guest.device.read_config(0, &mut config[..40]);
    assert_eq!(&config[..5], b"test\0");
    assert_eq!((u32_at(&config, 36), guest.device.queue_sizes().len()), (1, 2));
}

#[test]
fn features_are_agreed_on_and_an_old_guest_is_refused() {
    let mut guest = Guest::new();
    let answer = guest.initialize(36, u64::MAX).unwrap();
    assert_eq!((answer.len(), u32_at(&answer, 0), u32_at(&answer, 4)), (64, 7, 38));
    let agreed = u64::from(u32_at(&answer, 12)) | u64::from(u32_at(&answer, 32)) << 32;
    assert_ne!(agreed & init::DO_READDIRPLUS, 0);
    assert_ne!(agreed & init::DIRECT_IO_ALLOW_MMAP, 0);
    assert_ne!(agreed & init::POSIX_LOCKS, 0);
    // Not what nobody here would do: FLOCK_LOCKS, WRITEBACK_CACHE.
    assert_eq!(agreed & (1 << 10 | 1 << 16 | init::CACHE_SYMLINKS), 0);
    assert_eq!(guest.initialize(36, 0).map(|answer| u32_at(&answer, 12)), Ok(0));
    assert_eq!(guest.initialize(30, 0), Err(libc::EPROTO));
    let next_major = words().u32(8).u32(0).u32(0).u32(0);
    let answer = guest.call(opcode::INIT, 0, &next_major).unwrap();
    assert_eq!((answer.len(), u32_at(&answer, 0)), (8, 7));
}

#[test]
fn a_cache_policy_is_what_the_guest_is_told() {
    for (cache, timeout, flags) in [
        (CachePolicy::None, 0, open::DIRECT_IO),
        (CachePolicy::Auto, 1, 0),
        (CachePolicy::Always, 86400, open::KEEP_CACHE),
    ] {
        let mut guest = cached(cache);
        fs::write(guest.path("file"), "content").unwrap();
        let entry = guest.call(opcode::LOOKUP, 1, &words().text("file")).unwrap();
        assert_eq!((u64_at(&entry, 16), u64_at(&entry, 24)), (timeout, timeout));
        let opened = guest.call(opcode::OPEN, u64_at(&entry, 0), &words().u64(0)).unwrap();
        assert_eq!(u32_at(&opened, 8), flags, "{cache:?}");
    }
}

#[test]
fn what_is_written_is_on_the_host_and_comes_back() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create("file", libc::O_RDWR).unwrap();
    assert_eq!(guest.write(handle, 3, b"content", 0).map(|reply| u32_at(&reply, 0)), Ok(7));
    assert_eq!(fs::read(guest.path("file")).unwrap(), b"\0\0\0content");
    assert_eq!(guest.read(handle, 3, 4096).unwrap(), b"content");
    assert_eq!(guest.read(handle, 10, 4096).unwrap(), b"");
    for (what, arguments) in [
        (opcode::FSYNC, words().u64(handle).u64(0)),
        (opcode::FSYNC, words().u64(handle).u64(1)),
        (opcode::FLUSH, words().u64(handle).u64(0).u64(0)),
        (opcode::SYNCFS, words().u64(0)),
    ] {
        assert_eq!(guest.call(what, node, &arguments), Ok(Vec::new()));
    }
    // Data from 3 on, as the file system's blocks have it from 0.
    let seek = |whence: i32| words().u64(handle).u64(0).u32(whence.cast_unsigned()).u32(0);
    assert_eq!(u64_at(&guest.call(opcode::LSEEK, node, &seek(libc::SEEK_DATA)).unwrap(), 0), 0);
    assert_eq!(u64_at(&guest.call(opcode::LSEEK, node, &seek(libc::SEEK_HOLE)).unwrap(), 0), 10);
    assert_eq!(guest.call(opcode::LSEEK, node, &seek(libc::SEEK_SET)), Err(libc::EINVAL));
    let allocate = |mode: u32| words().u64(handle).u64(0).u64(100).u32(mode).u32(0);
    assert_eq!(guest.call(opcode::FALLOCATE, node, &allocate(0)), Ok(Vec::new()));
    assert_eq!(fs::metadata(guest.path("file")).unwrap().len(), 100);
    // FALLOC_FL_COLLAPSE_RANGE.
    assert_eq!(guest.call(opcode::FALLOCATE, node, &allocate(8)), Err(libc::EOPNOTSUPP));

    let (_, copy) = guest.create("copy", libc::O_WRONLY).unwrap();
    let arguments = words().u64(handle).u64(3).u64(0).u64(copy).u64(0).u64(7).u64(0);
    let copied = guest.call(opcode::COPY_FILE_RANGE, node, &arguments).unwrap();
    assert_eq!(u32_at(&copied, 0), 7);
    assert_eq!(fs::read(guest.path("copy")).unwrap(), b"content");

    // An open file without a name is a file still.
    assert_eq!(guest.call(opcode::UNLINK, 1, &words().text("file")), Ok(Vec::new()));
    assert_eq!(guest.read(handle, 3, 7).unwrap(), b"content");
    assert!(guest.call(opcode::RELEASE, node, &words().u64(handle).u64(0).u64(0)).is_ok());
    assert_eq!(guest.read(handle, 3, 7), Err(libc::EBADF));
}

#[test]
fn an_appending_writer_s_offset_is_the_host_s() {
    let mut guest = Guest::new();
    let (_, handle) = guest.create("log", libc::O_WRONLY | libc::O_APPEND).unwrap();
    guest.write(handle, 0, b"ours ", 0).unwrap();
    fs::write(guest.path("log"), "another's ").unwrap();
    guest.write(handle, 5, b"ours", 0).unwrap();
    assert_eq!(fs::read(guest.path("log")).unwrap(), b"another's ours");
}

#[test]
fn names_are_made_renamed_and_removed() {
    let mut guest = Guest::new();
    let entry = guest.call(opcode::MKDIR, 1, &words().u32(0o1777).u32(0).text("d")).unwrap();
    let folder = u64_at(&entry, 0);
    // The thread has no umask: the guest's kernel has applied its process's.
    assert_eq!(fs::metadata(guest.path("d")).unwrap().permissions().mode() & 0o7777, 0o1777);
    fs::write(guest.path("a"), "a").unwrap();
    fs::write(guest.path("b"), "b").unwrap();
    let rename = |to: u64, flags: u32, old: &str, new: &str| {
        words().u64(to).u32(flags).u32(0).text(old).text(new)
    };
    let mut renamed = |arguments| guest.call(opcode::RENAME2, 1, &arguments);
    assert_eq!(renamed(rename(1, libc::RENAME_NOREPLACE, "a", "b")), Err(libc::EEXIST));
    assert_eq!(renamed(rename(1, libc::RENAME_EXCHANGE, "a", "b")), Ok(Vec::new()));
    assert_eq!(renamed(rename(1, libc::RENAME_WHITEOUT, "a", "c")), Err(libc::EINVAL));
    assert_eq!(renamed(rename(1, 1 << 20, "a", "c")), Err(libc::EINVAL));
    assert_eq!(renamed(rename(folder, 0, "a", "moved")), Ok(Vec::new()));
    assert_eq!(fs::read(guest.path("d/moved")).unwrap(), b"b");
    let old_call = words().u64(1).text("b").text("a");
    assert_eq!(guest.call(opcode::RENAME, 1, &old_call), Ok(Vec::new()));

    let number = guest.look_up(1, "a").unwrap();
    let linked = guest.call(opcode::LINK, folder, &words().u64(number).text("hard")).unwrap();
    assert_eq!(u64_at(&linked, 0), number);
    assert_eq!(fs::metadata(guest.path("a")).unwrap().nlink(), 2);
    let link = guest.call(opcode::SYMLINK, 1, &words().text("soft").text("/etc/passwd")).unwrap();
    let target = guest.call(opcode::READLINK, u64_at(&link, 0), &words());
    assert_eq!(target.unwrap(), b"/etc/passwd");
    assert_eq!(guest.call(opcode::READLINK, number, &words()), Err(libc::EINVAL));

    assert_eq!(guest.call(opcode::RMDIR, 1, &words().text("d")), Err(libc::ENOTEMPTY));
    assert_eq!(guest.call(opcode::UNLINK, 1, &words().text("d")), Err(libc::EISDIR));
    assert_eq!(guest.call(opcode::UNLINK, folder, &words().text("moved")), Ok(Vec::new()));
    assert_eq!(guest.call(opcode::UNLINK, folder, &words().text("hard")), Ok(Vec::new()));
    assert_eq!(guest.call(opcode::RMDIR, 1, &words().text("d")), Ok(Vec::new()));
    assert_eq!(guest.look_up(1, "d"), Err(libc::ENOENT));
}

#[test]
fn a_temporary_file_gets_its_name_later() {
    let mut guest = Guest::new();
    let arguments = words().u32(libc::O_RDWR.cast_unsigned()).u32(0o100_600).u64(0).text("");
    let made = match guest.call(opcode::TMPFILE, 1, &arguments) {
        // Not every file system has them.
        Err(libc::EOPNOTSUPP) => return,
        made => made.unwrap(),
    };
    let (node, handle) = (u64_at(&made, 0), u64_at(&made, 128));
    guest.write(handle, 0, b"late", 0).unwrap();
    guest.call(opcode::LINK, 1, &words().u64(node).text("name")).unwrap();
    assert_eq!(fs::read(guest.path("name")).unwrap(), b"late");
}

#[test]
fn attributes_change_as_far_as_they_may() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create("file", libc::O_RDWR).unwrap();
    guest.write(handle, 0, b"content", 0).unwrap();
    let put = |at: usize, value: u64| {
        move |arguments: &mut [u8]| arguments[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    let changed = guest.set(node, set::SIZE, put(16, 3)).unwrap();
    assert_eq!(u64_at(&changed, 16 + 8), 3);
    assert_eq!(guest.set(node, set::SIZE, put(16, u64::MAX)), Err(libc::EFBIG));
    guest.set(node, set::MTIME, put(40, 1_000_000_000)).unwrap();
    let metadata = fs::metadata(guest.path("file")).unwrap();
    assert_eq!((metadata.mtime(), metadata.len()), (1_000_000_000, 3));
    guest.set(node, set::MTIME | set::MTIME_NOW, put(40, 5)).unwrap();
    assert!(fs::metadata(guest.path("file")).unwrap().mtime() > 1_000_000_000);
    // Nanoseconds that mean something else to utimensat(2).
    let odd = |a: &mut [u8]| a[60..64].copy_from_slice(&(libc::UTIME_OMIT as u32).to_le_bytes());
    assert_eq!(guest.set(node, set::MTIME, odd), Err(libc::EINVAL));
    guest.set(node, set::MODE, put(68, 0o4711)).unwrap();
    let mode = |guest: &Guest| fs::metadata(guest.path("file")).unwrap().permissions().mode();
    assert_eq!(mode(&guest) & 0o7777, 0o4711);
    // WRITE_KILL_SUIDGID: someone who is not root wrote.
    guest.write(handle, 0, b"x", 1 << 2).unwrap();
    assert_eq!(mode(&guest) & 0o7777, 0o711);
    let found = guest.call(opcode::STATFS, 1, &words()).unwrap();
    assert_eq!((found.len(), u32_at(&found, 44)), (80, 255));
}

#[test]
fn as_root_files_are_those_of_the_guest_s_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut guest = Guest::new();
    (guest.uid, guest.gid) = (1234, 5678);
    // Of a folder of root's, which the guest's kernel has judged.
    fs::set_permissions(guest.folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    guest.create("file", libc::O_RDWR).unwrap();
    guest.call(opcode::MKDIR, 1, &words().u32(0o755).u32(0).text("folder")).unwrap();
    guest.call(opcode::SYMLINK, 1, &words().text("link").text("x")).unwrap();
    for name in ["file", "folder", "link"] {
        let metadata = fs::symlink_metadata(guest.path(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678), "{name}");
    }
    (guest.uid, guest.gid) = (0, 0);
    guest.create("root's", libc::O_RDWR).unwrap();
    assert_eq!(fs::metadata(guest.path("root's")).unwrap().uid(), 0);
    let node = guest.look_up(1, "file").unwrap();
    guest.set(node, set::UID, |a| a[76..80].copy_from_slice(&99u32.to_le_bytes())).unwrap();
    assert_eq!(fs::metadata(guest.path("file")).unwrap().uid(), 99);
    let all = |a: &mut [u8]| a[76..80].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(guest.set(node, set::UID, all), Err(libc::EINVAL));
}

#[test]
fn nothing_outside_the_folder_is_reached() {
    let mut guest = Guest::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), guest.path("link")).unwrap();
    symlink(outside.path().join("secret"), guest.path("file-link")).unwrap();
    for name in ["..", ".", "", "/", "link/secret", "../secret", "/etc/passwd"] {
        assert_eq!(guest.look_up(1, name), Err(libc::EINVAL), "{name}");
        let made = guest.call(opcode::MKDIR, 1, &words().u64(0o755).text(name));
        assert_eq!(made, Err(libc::EINVAL), "{name}");
        assert_eq!(guest.create(name, libc::O_RDWR).unwrap_err(), libc::EINVAL, "{name}");
        let moved = words().u64(1).text("link").text(name);
        assert_eq!(guest.call(opcode::RENAME, 1, &moved), Err(libc::EINVAL), "{name}");
    }
    assert_eq!(guest.look_up(1, &"a".repeat(256)), Err(libc::ENAMETOOLONG));
    // A link is a file of its own: nothing is below it, and nothing is opened through it.
    let link = guest.look_up(1, "link").unwrap();
    assert_eq!(guest.look_up(link, "secret"), Err(libc::ENOTDIR));
    assert_eq!(guest.call(opcode::OPENDIR, link, &words().u64(0)), Err(libc::ELOOP));
    let link = guest.look_up(1, "file-link").unwrap();
    assert_eq!(guest.open(link, libc::O_RDONLY), Err(libc::ELOOP));
    assert_eq!(guest.set(link, set::SIZE, |_| {}), Err(libc::ELOOP));
    for flags in [libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC | libc::O_CREAT] {
        assert_eq!(guest.create("file-link", flags).unwrap_err(), libc::ELOOP);
    }
    let xattr = words().u64(0).text("user.a");
    assert_eq!(guest.call(opcode::GETXATTR, link, &xattr), Err(libc::EPERM));
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_file_is_never_opened() {
    let mut guest = Guest::new();
    for kind in [libc::S_IFBLK, libc::S_IFCHR] {
        let arguments = words().u32(kind | 0o666).u32(0x103).u64(0).text("device");
        assert_eq!(guest.call(opcode::MKNOD, 1, &arguments), Err(libc::EPERM));
    }
    let arguments = words().u32(libc::S_IFDIR | 0o777).u32(0).u64(0).text("folder");
    assert_eq!(guest.call(opcode::MKNOD, 1, &arguments), Err(libc::EINVAL));
    let arguments = words().u32(libc::S_IFIFO | 0o600).u32(0).u64(0).text("pipe");
    let pipe = u64_at(&guest.call(opcode::MKNOD, 1, &arguments).unwrap(), 0);
    assert!(fs::symlink_metadata(guest.path("pipe")).unwrap().file_type().is_fifo());
    // Would wait for its other end.
    assert_eq!(guest.open(pipe, libc::O_RDONLY), Err(libc::ENXIO));
    assert_eq!(guest.create("pipe", libc::O_WRONLY).unwrap_err(), libc::ENXIO);
}

#[test]
fn a_read_only_share_stays_as_it_is() {
    let mut guest = Guest::with(|options| options.read_only = true, Budget::new(100));
    fs::write(guest.path("file"), "content").unwrap();
    let before = fs::metadata(guest.path("file")).unwrap();
    let node = guest.look_up(1, "file").unwrap();
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(guest.open(node, flags), Err(libc::EROFS));
    }
    assert_eq!(guest.create("new", libc::O_RDWR).unwrap_err(), libc::EROFS);
    let mode = words().u32(0o100_644).u32(0).u64(0);
    let open_flags = words().u32(libc::O_RDWR.cast_unsigned()).u32(0o100_600).u64(0);
    for (what, on, arguments) in [
        (opcode::CREATE, 1, open_flags.clone().text("file")),
        (opcode::TMPFILE, 1, open_flags.text("")),
        (opcode::MKNOD, 1, mode.text("n")),
        (opcode::MKDIR, 1, words().u64(0o755).text("d")),
        (opcode::SYMLINK, 1, words().text("s").text("t")),
        (opcode::LINK, 1, words().u64(node).text("l")),
        (opcode::UNLINK, 1, words().text("file")),
        (opcode::RMDIR, 1, words().text("file")),
        (opcode::RENAME, 1, words().u64(1).text("file").text("other")),
        (opcode::SETATTR, node, Words(vec![0; 88])),
        (opcode::SETXATTR, node, words().u32(1).u32(0).text("user.a").text("v")),
        (opcode::REMOVEXATTR, node, words().text("user.a")),
    ] {
        assert_eq!(guest.call(what, on, &arguments), Err(libc::EROFS), "{what}");
    }
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.write(handle, 0, b"x", 0), Err(libc::EROFS));
    let allocate = words().u64(handle).u64(0).u64(100).u64(0);
    assert_eq!(guest.call(opcode::FALLOCATE, node, &allocate), Err(libc::EROFS));
    assert_eq!(guest.read(handle, 0, 100).unwrap(), b"content");
    let after = fs::metadata(guest.path("file")).unwrap();
    // Being read leaves no trace either.
    let times = |m: &fs::Metadata| (m.atime(), m.atime_nsec(), m.ctime(), m.ctime_nsec(), m.ino());
    assert_eq!(times(&before), times(&after));
    assert_eq!(fs::read_dir(guest.folder.path()).unwrap().count(), 1);
}

#[test]
fn users_attributes_work_and_the_host_s_are_out_of_reach() {
    let mut guest = Guest::new();
    let (node, _) = guest.create("file", libc::O_RDWR).unwrap();
    let set = |name: &str, value: &str, flags: i32| {
        let mut words = words().u32(value.len() as u32).u32(flags.cast_unsigned()).text(name);
        words.0.extend(value.as_bytes());
        words
    };
    let supported = guest.call(opcode::SETXATTR, node, &set("user.a", "value", 0));
    if supported == Err(libc::EOPNOTSUPP) {
        // A tmpfs before Linux 6.6.
        return;
    }
    assert_eq!(supported, Ok(Vec::new()));
    let again = set("user.a", "b", libc::XATTR_CREATE);
    assert_eq!(guest.call(opcode::SETXATTR, node, &again), Err(libc::EEXIST));
    let get = |room: u32, name: &str| words().u32(room).u32(0).text(name);
    let size = guest.call(opcode::GETXATTR, node, &get(0, "user.a")).unwrap();
    assert_eq!(u32_at(&size, 0), 5);
    assert_eq!(guest.call(opcode::GETXATTR, node, &get(5, "user.a")).unwrap(), b"value");
    assert_eq!(guest.call(opcode::GETXATTR, node, &get(4, "user.a")), Err(libc::ERANGE));
    assert_eq!(guest.call(opcode::GETXATTR, node, &get(5, "user.b")), Err(libc::ENODATA));
    assert_eq!(guest.call(opcode::LISTXATTR, node, &words().u64(99)).unwrap(), b"user.a\0");
    for name in ["security.capability", "trusted.overlay.opaque", "system.posix_acl_access", ""] {
        for (what, arguments) in [
            (opcode::SETXATTR, set(name, "value", 0)),
            (opcode::GETXATTR, get(5, name)),
            (opcode::REMOVEXATTR, words().text(name)),
        ] {
            assert_eq!(guest.call(what, node, &arguments), Err(libc::EOPNOTSUPP), "{name}");
        }
    }
    // A value that is shorter than it says.
    let short = words().u32(100).u32(0).text("user.a").text("value");
    assert_eq!(guest.call(opcode::SETXATTR, node, &short), Err(libc::EINVAL));
    assert_eq!(guest.call(opcode::REMOVEXATTR, node, &words().text("user.a")), Ok(Vec::new()));
}

/// Names of a listing, by reading on with the offsets that it gives.
fn list(guest: &mut Guest, what: u32, room: u32) -> Vec<(String, u64)> {
    let opened = guest.call(opcode::OPENDIR, 1, &words().u64(0)).unwrap();
    let handle = u64_at(&opened, 0);
    let entry = if what == opcode::READDIRPLUS { 128 } else { 0 };
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let arguments = words().u64(handle).u64(offset).u32(room).u32(0).u64(0).u64(0);
        let answer = guest.call(what, 1, &arguments).unwrap();
        assert!(answer.len() <= room as usize);
        let mut rest = &answer[..];
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let number = if entry > 0 { u64_at(rest, 0) } else { 0 };
            offset = u64_at(rest, entry + 8);
            let length = u32_at(rest, entry + 16) as usize;
            let name = String::from_utf8(rest[entry + 24..entry + 24 + length].to_vec()).unwrap();
            names.push((name, number));
            rest = &rest[(entry + 24 + length).next_multiple_of(8)..];
        }
    }
    names.sort();
    names
}

/// Held by those who open half of the files that a process may have here, so that they do so one after the other.
static MANY_FILES: Mutex<()> = Mutex::new(());

#[test]
fn a_large_folder_is_listed_whole_and_once() {
    let _alone = unpoisoned(MANY_FILES.lock());
    let mut guest = Guest::with(|_| {}, Budget::new(20_000));
    let mut expected = vec![".".to_owned(), "..".to_owned()];
    for number in 0..10_000 {
        let name = format!("a-file-of-many-{number}");
        fs::write(guest.path(&name), "").unwrap();
        expected.push(name);
    }
    expected.sort();
    for (what, room) in
        [(opcode::READDIR, 4096), (opcode::READDIRPLUS, 4096), (opcode::READDIRPLUS, 65536)]
    {
        let names = list(&mut guest, what, room);
        assert!(names.iter().map(|(name, _)| name).eq(&expected), "{what} {room}");
        let known = names.iter().filter(|(_, number)| *number != 0).count();
        assert_eq!(known, if what == opcode::READDIRPLUS { 10_000 } else { 0 });
    }
    // With no room for a single one there is no end to be seen.
    let opened = guest.call(opcode::OPENDIR, 1, &words().u64(0)).unwrap();
    let arguments = words().u64(u64_at(&opened, 0)).u64(0).u32(100).u32(0).u64(0).u64(0);
    assert_eq!(guest.call(opcode::READDIRPLUS, 1, &arguments), Err(libc::EINVAL));
}

#[test]
fn ten_thousand_files_are_made_listed_removed_and_forgotten() {
    let _alone = unpoisoned(MANY_FILES.lock());
    let mut guest = Guest::with(|_| {}, Budget::new(20_000));
    let name = |number: u64| format!("a-file-of-many-{number}");
    let mut numbers = Vec::new();
    for number in 0..10_000 {
        let (node, handle) = guest.create(&name(number), libc::O_RDWR).unwrap();
        let closed = words().u64(handle).u64(0).u64(0);
        guest.call(opcode::RELEASE, node, &closed).unwrap();
        numbers.push(node);
    }
    // Each is known already, and told of once more.
    let known: HashSet<u64> = numbers.iter().copied().collect();
    let listed = list(&mut guest, opcode::READDIRPLUS, 4096);
    assert_eq!(listed.iter().filter(|(_, node)| known.contains(node)).count(), 10_000);
    for (number, node) in (0..).zip(&numbers) {
        guest.call(opcode::UNLINK, 1, &words().text(&name(number))).unwrap();
        assert_eq!(guest.call(opcode::FORGET, *node, &words().u64(2)), Err(0));
    }
    assert_eq!(fs::read_dir(guest.folder.path()).unwrap().count(), 0);
    let gone = words().u64(0).u64(0);
    assert_eq!(guest.call(opcode::GETATTR, numbers[0], &gone), Err(libc::ESTALE));
}

#[test]
fn a_folder_is_emptied_while_it_is_listed() {
    // On a tmpfs, whose places in a folder move as names go.
    let mut guest = Guest::on(Path::new("/dev/shm"));
    for number in 0..2000 {
        fs::write(guest.path(&number.to_string()), "").unwrap();
    }
    let opened = guest.call(opcode::OPENDIR, 1, &words().u64(0)).unwrap();
    let (handle, mut offset) = (u64_at(&opened, 0), 0);
    loop {
        let arguments = words().u64(handle).u64(offset).u32(4096).u32(0).u64(0).u64(0);
        let answer = guest.call(opcode::READDIR, 1, &arguments).unwrap();
        if answer.is_empty() {
            break;
        }
        let mut rest = &answer[..];
        while !rest.is_empty() {
            offset = u64_at(rest, 8);
            let length = u32_at(rest, 16) as usize;
            let name = std::str::from_utf8(&rest[24..24 + length]).unwrap();
            if !name.starts_with('.') {
                guest.call(opcode::UNLINK, 1, &words().text(name)).unwrap();
            }
            rest = &rest[(24 + length).next_multiple_of(8)..];
        }
    }
    assert_eq!(fs::read_dir(guest.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_guest_that_holds_all_descriptors_gets_enfile_and_can_go_on() {
    let mut guest = Guest::with(|_| {}, Budget::new(10));
    for number in 0..20 {
        fs::write(guest.path(&number.to_string()), "").unwrap();
    }
    let known: Vec<_> =
        (0..10).map(|number| guest.look_up(1, &number.to_string()).unwrap()).collect();
    assert_eq!(guest.look_up(1, "11"), Err(libc::ENFILE));
    assert_eq!(guest.open(known[0], libc::O_RDONLY), Err(libc::ENFILE));
    assert_eq!(guest.create("new", libc::O_RDWR).unwrap_err(), libc::ENFILE);
    // Two by the one request, one by the other, and one that nobody knows.
    let several = words().u32(3).u32(0).u64(known[1]).u64(1).u64(999).u64(1).u64(known[2]).u64(5);
    assert_eq!(guest.call(opcode::BATCH_FORGET, 0, &several), Err(0));
    assert_eq!(guest.call(opcode::FORGET, known[3], &words().u64(1)), Err(0));
    assert_eq!(guest.call(opcode::GETATTR, known[1], &words().u64(0).u64(0)), Err(libc::ESTALE));
    // One for its name and one for its content.
    let (_, handle) = guest.create("new", libc::O_RDWR).unwrap();
    assert!(guest.look_up(1, "12").is_ok());
    assert_eq!(guest.look_up(1, "13"), Err(libc::ENFILE));
    assert!(guest.call(opcode::RELEASE, 1, &words().u64(handle).u64(0).u64(0)).is_ok());
    assert!(guest.look_up(1, "13").is_ok());
    // The guest starts again, and nothing of the old one is left.
    assert_eq!(guest.call(opcode::DESTROY, 0, &words()), Ok(Vec::new()));
    assert!((0..10).all(|number| guest.look_up(1, &number.to_string()).is_ok()));
    guest.device.reset();
}

#[test]
fn requests_that_are_none_get_an_error_or_nothing() {
    let mut guest = Guest::new();
    let (_, handle) = guest.create("file", libc::O_RDWR).unwrap();
    // Operations of every number with arguments of every length, zeroes and ones.
    for opcode in 0..60 {
        if matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT) {
            continue;
        }
        for length in [0, 1, 4, 7, 8, 16, 24, 39, 40, 63, 64, 88, 300] {
            for byte in [0, 1, 0xff] {
                let arguments = Words(vec![byte; length]);
                for node in [0, 1, 2, u64::MAX] {
                    // It answers; what, is the other tests'.
                    let _ = guest.call(opcode, node, &arguments);
                }
            }
        }
    }
    assert_eq!(guest.call(opcode::IOCTL, 1, &words()), Err(libc::ENOTTY));
    assert_eq!(guest.call(4096, 1, &words()), Err(libc::ENOSYS));
    let (node, handle) = match guest.create("file2", libc::O_RDWR) {
        Ok(made) => made,
        Err(error) => panic!("{error} {handle}"),
    };
    // No terminator.
    let unterminated = Words(b"file".to_vec());
    assert_eq!(guest.call(opcode::LOOKUP, 1, &unterminated), Err(libc::EINVAL));
    // More content than there is, and more to read than there is room.
    let arguments = words().u64(handle).u64(0).u32(100).u32(0).u64(0).u64(0);
    assert_eq!(guest.call_with(opcode::WRITE, node, &arguments, b"x"), Err(libc::EINVAL));
    assert_eq!(guest.read(handle, 0, u32::MAX), Err(libc::EINVAL));
    assert_eq!(guest.read(handle, u64::MAX, 1), Err(libc::EINVAL));
    assert_eq!(guest.call(opcode::GETATTR, 12345, &words().u64(0).u64(0)), Err(libc::ESTALE));
}

#[test]
fn chains_that_make_no_sense_get_an_error_or_come_back_empty() {
    let mut guest = Guest::new();
    fs::write(guest.path("file"), "content").unwrap();
    let mut request = guest.header(40 + 16, opcode::GETATTR, 1);
    request.resize(40 + 16, 0);
    let answer = 0x4_0000;
    let whole = guest.place(&request);
    assert!(guest.send(&[whole, writable(answer, 200)]).is_ok());
    // In many pieces.
    let split =
        |at: u32| [readable(whole.address, at), readable(whole.address + u64::from(at), 56 - at)];
    let [one, two] = split(3);
    let three = [writable(answer, 1), writable(answer + 1, 20), writable(answer + 21, 179)];
    assert!(guest.send(&[one, two, three[0], three[1], three[2]]).is_ok());
    // No header.
    assert_eq!(guest.send(&[readable(whole.address, 39), writable(answer, 200)]), Err(0));
    assert_eq!(guest.send(&[writable(answer, 200)]), Err(0));
    assert_eq!(guest.send(&[readable(0x30_0000, 40), writable(answer, 200)]), Err(0));
    // No room for the answer: for what it says, or for anything.
    assert_eq!(guest.send(&[whole, writable(answer, 16)]).unwrap_err(), libc::EINVAL);
    assert_eq!(guest.send(&[whole, writable(answer, 15)]), Err(0));
    assert_eq!(guest.send(&[whole]), Err(0));
    assert_eq!(guest.send(&[whole, writable(0x30_0000, 200)]), Err(0));
    // Lengths that are not.
    for length in [0, 39, 57, u32::MAX] {
        request[..4].copy_from_slice(&length.to_le_bytes());
        let buffer = guest.place(&request);
        let answered = guest.send(&[buffer, writable(answer, 200)]);
        assert_eq!(answered, Err(libc::EINVAL), "{length}");
    }
    // Too long for anything but content.
    let long = 0x2_0029_u32;
    request[..4].copy_from_slice(&long.to_le_bytes());
    guest.place(&request);
    let buffers = [readable(whole.address, long), writable(answer + 0x4_0000, 200)];
    guest.driver.send(&buffers);
    assert_eq!(guest.driver.wait_used(&guest.inbox, 1)[0].1, 16);
    // The device lives.
    assert!(guest.look_up(1, "file").is_ok());
}
