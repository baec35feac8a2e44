//! What a program may expect of a folder, whatever is behind it: one list for shared folders and volumes.
//! Runs where the folder is: in a test's guest, or as the program of this package in an image.

#![expect(clippy::unwrap_used, reason = "an expectation that fails is told by its line")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, FallocateFlags, FcntlArg, Flock, FlockArg, RenameFlags, copy_file_range, fallocate,
    fcntl, renameat2,
};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Whence, fork, getpid, lseek, mkfifo, syncfs};

/// One expectation: its name, and what checks it in an empty folder.
pub type Expectation = (&'static str, fn(&Path));

/// All of them.
pub const EXPECTATIONS: [Expectation; 19] = [
    ("rename", rename),
    ("links", links),
    ("unlinked open files", unlinked_open_files),
    ("opening", opening),
    ("appending", appending),
    ("temporary files", temporary_files),
    ("sparse files", sparse_files),
    ("large files", large_files),
    ("private mappings", private_mappings),
    ("shared mappings", shared_mappings),
    ("locks", locks),
    ("locks of processes", locks_of_processes),
    ("attributes", attributes),
    ("owners", owners),
    ("times", times),
    ("extended attributes", extended_attributes),
    ("many files", many_files),
    ("names", names),
    ("pipes and sockets", pipes_and_sockets),
];

/// Checks `expectations`, each in a folder of its own below `folder`, and says so.
///
/// # Panics
/// One is not met.
pub fn check(folder: &Path, expectations: &[Expectation]) {
    for (number, (name, check)) in expectations.iter().enumerate() {
        let own = folder.join(format!("semantics-{number}"));
        fs::create_dir(&own).unwrap_or_else(|error| panic!("{}: {error}", own.display()));
        eprintln!("checking {name} in {}", folder.display());
        check(&own);
        fs::remove_dir_all(&own).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn read_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

fn made(path: &Path) -> File {
    read_write().create_new(true).open(path).unwrap()
}

fn rename(folder: &Path) {
    let (a, b) = (folder.join("a"), folder.join("b"));
    let rename = |flags| renameat2(AT_FDCWD, &a, AT_FDCWD, &b, flags);
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    assert_eq!(rename(RenameFlags::RENAME_NOREPLACE), Err(Errno::EEXIST));
    rename(RenameFlags::RENAME_EXCHANGE).unwrap();
    assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"b".into(), b"a".into()));
    // Whoever has the replaced file open has it still.
    let mut replaced = File::open(&b).unwrap();
    fs::rename(&a, &b).unwrap();
    let mut content = String::new();
    replaced.read_to_string(&mut content).unwrap();
    assert_eq!((content.as_str(), fs::read(&b).unwrap(), a.exists()), ("a", b"b".into(), false));
    let (empty, full) = (folder.join("empty"), folder.join("full"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&full).unwrap();
    fs::rename(&b, full.join("b")).unwrap();
    assert_eq!(errno(fs::rename(&empty, &full)), Errno::ENOTEMPTY);
    fs::rename(&full, &empty).unwrap();
    assert!(empty.join("b").exists());
}

fn links(folder: &Path) {
    let file = folder.join("file");
    fs::write(&file, "content").unwrap();
    fs::hard_link(&file, folder.join("hard")).unwrap();
    let (one, other) = (fs::metadata(&file).unwrap(), fs::metadata(folder.join("hard")).unwrap());
    assert_eq!((one.nlink(), one.ino()), (2, other.ino()));
    fs::remove_file(&file).unwrap();
    assert_eq!(fs::metadata(folder.join("hard")).unwrap().nlink(), 1);
    symlink("hard", folder.join("soft")).unwrap();
    assert_eq!(fs::read(folder.join("soft")).unwrap(), b"content");
    assert_eq!(fs::read_link(folder.join("soft")).unwrap(), Path::new("hard"));
    symlink("nowhere", folder.join("dangling")).unwrap();
    assert_eq!(errno(fs::read(folder.join("dangling"))), Errno::ENOENT);
    assert_eq!(errno(fs::remove_dir(folder.join("soft"))), Errno::ENOTDIR);
}

fn unlinked_open_files(folder: &Path) {
    let path = folder.join("file");
    let mut file = made(&path);
    file.write_all(b"content").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(errno(File::open(&path)), Errno::ENOENT);
    file.write_all(b" and more").unwrap();
    file.rewind().unwrap();
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content and more");
    file.set_len(3).unwrap();
    assert_eq!((file.metadata().unwrap().nlink(), file.metadata().unwrap().len()), (0, 3));
}

fn opening(folder: &Path) {
    let path = folder.join("file");
    let file = made(&path);
    assert_eq!(errno(read_write().create_new(true).open(&path)), Errno::EEXIST);
    (&file).write_all(b"content").unwrap();
    drop(read_write().create(true).truncate(true).open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    file.set_len(100).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [0; 100]);
    assert_eq!(errno(File::open(path.join("below"))), Errno::ENOTDIR);
    assert_eq!(errno(OpenOptions::new().write(true).open(folder)), Errno::EISDIR);
    for flags in [libc::O_SYNC, libc::O_DSYNC, libc::O_DIRECT, libc::O_NOATIME] {
        let file = read_write().custom_flags(flags).open(&path).unwrap();
        // Aligned, which O_DIRECT may ask for.
        let block = Box::new(Block([7; 4096]));
        assert_eq!(file.write_at(&block.0, 4096).unwrap(), 4096, "{flags:#x}");
        assert_eq!(fs::read(&path).unwrap()[4096..], block.0, "{flags:#x}");
    }
    let [file, place] = [&path, folder].map(|path| File::open(path).unwrap());
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    place.sync_all().unwrap();
    syncfs(&place).unwrap();
}

#[repr(align(4096))]
struct Block([u8; 4096]);

fn appending(folder: &Path) {
    let path = folder.join("log");
    let appender = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut one, mut other) = (appender(), appender());
    for _ in 0..100 {
        one.write_all(b"one\n").unwrap();
        other.write_all(b"other\n").unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\nother\n".repeat(100));
}

fn temporary_files(folder: &Path) {
    let mut file = match read_write().custom_flags(libc::O_TMPFILE).mode(0o600).open(folder) {
        // FUSE has them from Linux 6.1 on, and not every file system does.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
        file => file.unwrap(),
    };
    file.write_all(b"content").unwrap();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    let from = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let to = std::ffi::CString::new(folder.join("name").as_os_str().as_bytes()).unwrap();
    // SAFETY: both strings end.
    let linked = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    Errno::result(linked).unwrap();
    assert_eq!(fs::read(folder.join("name")).unwrap(), b"content");
}

fn sparse_files(folder: &Path) {
    const HOLE: u64 = 64 << 20;
    let path = folder.join("sparse");
    let file = made(&path);
    file.write_all_at(b"data", HOLE).unwrap();
    file.sync_all().unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), HOLE + 4);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let data = lseek(&file, 0, Whence::SeekData).unwrap();
    assert!((1 << 20..=HOLE as i64).contains(&data), "{data}");
    assert_eq!(lseek(&file, 0, Whence::SeekHole), Ok(0));
    assert_eq!(lseek(&file, HOLE as i64 + 4, Whence::SeekData), Err(Errno::ENXIO));
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 >= 1 << 20);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    file.write_all_at(&[1; 8192], 0).unwrap();
    fallocate(&file, punch, 0, 4096).unwrap();
    let mut start = [1; 8192];
    file.read_exact_at(&mut start, 0).unwrap();
    assert!(start[..4096].iter().all(|byte| *byte == 0) && start[4096..].iter().all(|b| *b == 1));
    assert_eq!(file.metadata().unwrap().len(), HOLE + 4);
}

fn large_files(folder: &Path) {
    let pattern: Vec<u8> = (0..5_000_001u32).map(|n| (n * 7 + (n >> 9)) as u8).collect();
    let mut file = made(&folder.join("large"));
    // Pieces that fit no page.
    for piece in pattern.chunks(123_457) {
        file.write_all(piece).unwrap();
    }
    file.sync_all().unwrap();
    let again = fs::read(folder.join("large")).unwrap();
    assert!(again == pattern, "a large file came back changed");
    file.write_all_at(b"changed", 2_500_000).unwrap();
    let mut part = [0; 11];
    file.read_exact_at(&mut part, 2_499_998).unwrap();
    assert_eq!(&part[2..9], b"changed");
    let copy = made(&folder.join("copy"));
    let mut copied = 0;
    file.seek(SeekFrom::Start(0)).unwrap();
    while copied < pattern.len() {
        let count = copy_file_range(&file, None, &copy, None, pattern.len() - copied).unwrap();
        assert_ne!(count, 0);
        copied += count;
    }
    let (one, other) = (fs::read(folder.join("large")).unwrap(), fs::read(folder.join("copy")));
    assert!(one == other.unwrap(), "a copy differs");
}

/// Maps the first 8192 bytes of a file, gives them to `work`, writes them back and unmaps them.
fn with_mapping(
    file: &File,
    flags: libc::c_int,
    work: impl FnOnce(&mut [u8]),
) -> Result<(), Errno> {
    const LENGTH: usize = 8192;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let nowhere = std::ptr::null_mut();
    // SAFETY: a mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(nowhere, LENGTH, protection, flags, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: mapped just now, for reading and writing, and unmapped below only. The file is longer.
    work(unsafe { std::slice::from_raw_parts_mut(start.cast(), LENGTH) });
    // SAFETY: the same mapping, to which nothing refers any more.
    let synced = unsafe { libc::msync(start, LENGTH, libc::MS_SYNC) };
    let synced = Errno::result(synced);
    // SAFETY: as above.
    unsafe { libc::munmap(start, LENGTH) };
    synced.map(drop)
}

fn private_mappings(folder: &Path) {
    let file = made(&folder.join("file"));
    file.write_all_at(&[7; 8192], 0).unwrap();
    with_mapping(&file, libc::MAP_PRIVATE, |bytes| {
        assert!(bytes.iter().all(|byte| *byte == 7));
        bytes[0] = 1;
    })
    .unwrap();
    assert_eq!(fs::read(folder.join("file")).unwrap(), [7; 8192]);
}

fn shared_mappings(folder: &Path) {
    let file = made(&folder.join("file"));
    file.set_len(8192).unwrap();
    let mapped = with_mapping(&file, libc::MAP_SHARED, |bytes| {
        bytes[4095..4100].copy_from_slice(b"12345");
    });
    mapped.unwrap();
    assert_eq!(fs::read(folder.join("file")).unwrap()[4095..4100], *b"12345");
    file.write_all_at(b"by write", 0).unwrap();
    with_mapping(&file, libc::MAP_SHARED, |bytes| assert_eq!(&bytes[..8], b"by write")).unwrap();
}

fn locks(folder: &Path) {
    let path = folder.join("file");
    let (one, other) = (made(&path), read_write().open(&path).unwrap());
    let lock = |kind: libc::c_int, start| libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: 10,
        l_pid: 0,
    };
    let set =
        |file: &File, kind, start| fcntl(file, FcntlArg::F_OFD_SETLK(&lock(kind, start))).map(drop);
    set(&one, libc::F_WRLCK, 0).unwrap();
    assert_eq!(set(&other, libc::F_RDLCK, 5), Err(Errno::EAGAIN));
    set(&other, libc::F_WRLCK, 10).unwrap();
    // A process's lock is another owner's than a description's.
    let process = fcntl(&one, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, 0)));
    assert_eq!(process, Err(Errno::EAGAIN));
    set(&one, libc::F_UNLCK, 0).unwrap();
    set(&other, libc::F_RDLCK, 0).unwrap();
    // A lock goes with its description.
    drop(other);
    fcntl(&one, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, 0))).unwrap();

    let flock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e);
    let held = flock(one).unwrap();
    assert_eq!(flock(File::open(&path).unwrap()).err(), Some(Errno::EAGAIN));
    drop(held);
    flock(File::open(&path).unwrap()).unwrap();
}

/// A lock of the whole file, as fcntl(2) takes it.
fn whole(kind: libc::c_int) -> libc::flock {
    let (l_type, l_whence) = (kind as i16, libc::SEEK_SET as i16);
    libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Forks, and gives the child's answer and its id when it ends. The child may only make system calls: others of this
/// process's threads may hold what they like.
fn in_child(answer: impl FnOnce() -> u8) -> (u8, Pid) {
    // SAFETY: the child makes system calls and leaves by _exit(2); it allocates nothing and drops nothing.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = answer();
            // SAFETY: it ends the process, whose buffers and destructors are the parent's.
            unsafe { libc::_exit(code.into()) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => (code as u8, child),
            other => panic!("the child of a test: {other:?}"),
        },
    }
}

fn locks_of_processes(folder: &Path) {
    let path = folder.join("file");
    let file = made(&path);
    let us = getpid();
    let set = |kind| fcntl(&file, FcntlArg::F_SETLK(&whole(kind)));
    let is_refused = |kind| set(kind) == Err(Errno::EAGAIN);
    set(libc::F_WRLCK).unwrap();
    // A child has its parent's descriptors, and none of its locks.
    let (seen, _) = in_child(|| {
        let mut found = whole(libc::F_RDLCK);
        let asked = fcntl(&file, FcntlArg::F_GETLK(&mut found));
        let is_told = asked.is_ok() && found.l_pid == us.as_raw();
        u8::from(is_refused(libc::F_RDLCK)) | u8::from(is_told) << 1
    });
    assert_eq!(seen, 3, "refused, and told who has it");
    set(libc::F_RDLCK).unwrap();
    let (seen, _) = in_child(|| u8::from(set(libc::F_RDLCK).is_ok() && is_refused(libc::F_WRLCK)));
    assert_eq!(seen, 1, "two may read");
    // The child's went with it; ours go when any descriptor of the file is closed.
    set(libc::F_WRLCK).unwrap();
    drop(File::open(&path).unwrap());
    let (seen, _) = in_child(|| u8::from(set(libc::F_WRLCK).is_ok()));
    assert_eq!(seen, 1, "a lock goes with the first close");
    // Who waits gets it when it is given up: by the child's end, as its parent waits.
    let (mut ready, mut said) = std::io::pipe().unwrap();
    let waiter = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            in_child(|| {
                let locked = set(libc::F_WRLCK).is_ok();
                // A byte is one system call; the pause is for the parent to wait in vain for a while.
                let told = said.write_all(b"!").is_ok();
                let pause = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                // SAFETY: reads a timespec that lives.
                unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
                u8::from(locked && told)
            })
        });
        ready.read_exact(&mut [0]).unwrap();
        let waited = fcntl(&file, FcntlArg::F_SETLKW(&whole(libc::F_WRLCK))).map(drop);
        assert_eq!(holder.join().unwrap().0, 1);
        waited
    });
    assert_eq!(waiter, Ok(()));
}

fn attributes(folder: &Path) {
    let path = folder.join("file");
    let file = read_write().create_new(true).mode(0o640).open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o640);
    for wanted in [0o400, 0o777, 0o1644, 0o600] {
        fs::set_permissions(&path, PermissionsExt::from_mode(wanted)).unwrap();
        assert_eq!(mode(&path), wanted);
    }
    file.write_all_at(&[1; 10_000], 0).unwrap();
    let metadata = file.metadata().unwrap();
    assert!(metadata.is_file() && metadata.len() == 10_000 && metadata.blksize() > 0);
    let room = nix::sys::statvfs::statvfs(folder).unwrap();
    assert!(room.blocks() >= room.blocks_available() && room.name_max() == 255);
}

fn owners(folder: &Path) {
    // Root only, which may make what it has somebody else's.
    let path = folder.join("file");
    made(&path);
    std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678));
    // The new owner is not trusted with what the old one's privileges were.
    std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    // A folder's group goes to what is made in it.
    let group = folder.join("group");
    fs::create_dir(&group).unwrap();
    std::os::unix::fs::chown(&group, None, Some(77)).unwrap();
    fs::set_permissions(&group, PermissionsExt::from_mode(0o2775)).unwrap();
    fs::create_dir(group.join("below")).unwrap();
    let below = fs::metadata(group.join("below")).unwrap();
    assert_eq!((below.gid(), below.permissions().mode() & 0o2000), (77, 0o2000));
}

fn times(folder: &Path) {
    let path = folder.join("file");
    let file = made(&path);
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_times(fs::FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.modified().unwrap(), metadata.accessed().unwrap()), (then, then));
    file.write_all_at(b"x", 0).unwrap();
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > then);
    let before = fs::metadata(folder).unwrap().modified().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    made(&folder.join("another"));
    assert!(file_time_moved(folder, before), "a folder's time stands still");
}

/// Attributes may be kept for a second.
fn file_time_moved(path: &Path, before: SystemTime) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        fs::metadata(path).unwrap().modified().unwrap() > before
    })
}

fn extended_attributes(folder: &Path) {
    let path = folder.join("file");
    made(&path);
    match xattr::set(&path, "user.isolab", b"value") {
        // A tmpfs before Linux 6.6 is behind it.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
        set => set.unwrap(),
    }
    assert_eq!(xattr::get(&path, "user.isolab").unwrap().as_deref(), Some(&b"value"[..]));
    xattr::set(&path, "user.other", &[0; 1000]).unwrap();
    let mut names: Vec<_> = xattr::list(&path).unwrap().collect();
    names.sort();
    assert_eq!(names, ["user.isolab", "user.other"]);
    xattr::remove(&path, "user.isolab").unwrap();
    assert_eq!(xattr::get(&path, "user.isolab").unwrap(), None);
}

fn many_files(folder: &Path) {
    const COUNT: usize = 10_000;
    let name = |number| format!("a-file-of-many-{number}");
    for number in 0..COUNT {
        made(&folder.join(name(number)));
    }
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            assert!(entry.metadata().unwrap().is_file());
            entry.file_name().into_string().unwrap()
        })
        .collect();
    let mut expected: Vec<String> = (0..COUNT).map(name).collect();
    found.sort();
    expected.sort();
    assert!(found == expected, "{} of {COUNT} files are listed", found.len());
}

fn names(folder: &Path) {
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe \n'");
    fs::write(folder.join(odd), "").unwrap();
    let long = "l".repeat(255);
    fs::write(folder.join(&long), "").unwrap();
    let mut listed: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    listed.sort();
    assert_eq!(listed, [long.as_ref(), odd]);
    assert_eq!(errno(fs::write(folder.join("l".repeat(256)), "")), Errno::ENAMETOOLONG);
    let deep: std::path::PathBuf = std::iter::repeat_n("folder", 50).collect();
    fs::create_dir_all(folder.join(&deep)).unwrap();
    assert!(folder.join(deep).is_dir());
}

fn pipes_and_sockets(folder: &Path) {
    let pipe = folder.join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    fs::write(&pipe, "through a pipe").unwrap();
    assert_eq!(reader.join().unwrap(), b"through a pipe");
    // The address of a socket is short.
    let place = File::open(folder).unwrap();
    let address = format!("/proc/self/fd/{}/socket", place.as_raw_fd());
    let listener = UnixListener::bind(&address).unwrap();
    let mut near = UnixStream::connect(&address).unwrap();
    near.write_all(b"!").unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let mut byte = [0];
    far.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"!");
}

#[track_caller]
fn errno<T>(result: std::io::Result<T>) -> Errno {
    match result {
        Ok(_) => panic!("this succeeded"),
        Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_root_a_folder_of_the_host_does_what_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), &EXPECTATIONS);
    }
}
