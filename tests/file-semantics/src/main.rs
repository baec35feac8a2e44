//! What programs count on of a folder they keep data in: each check makes its own files in the folder that is named,
//! and removes them. A line for each, `ok` or what is wrong; the exit code says whether all went well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, Flock, FlockArg, fallocate, fcntl};
use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Whence, fork, lseek};

type Check = fn(&Path) -> io::Result<()>;

const CHECKS: [(&str, Check); 12] = [
    ("rename", rename),
    ("mmap", map),
    ("flock", flock),
    ("posix-locks", posix_locks),
    ("fsync", fsync),
    ("sparse", sparse),
    ("xattr", attributes),
    ("10000-files", many),
    ("hard-link", hard_link),
    ("unlink-open", unlink_open),
    ("append", append),
    ("owners-and-modes", owners),
];

fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    let mut code = ExitCode::SUCCESS;
    for (name, check) in CHECKS {
        let own = folder.join(name);
        let result = fs::create_dir(&own).and_then(|()| check(&own));
        match result.and_then(|()| fs::remove_dir_all(&own)) {
            Ok(()) => println!("{name}: ok"),
            Err(error) => {
                println!("{name}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn demand(holds: bool, what: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(format!("not so: {what}"))) }
}

fn rename(folder: &Path) -> io::Result<()> {
    let (old, new) = (folder.join("old"), folder.join("new"));
    fs::write(&old, "old")?;
    fs::write(&new, "new")?;
    let mut open = File::open(&new)?;
    fs::rename(&old, &new)?;
    demand(fs::read(&new)? == b"old" && !old.exists(), "the name is the other file's at once")?;
    let mut text = String::new();
    open.read_to_string(&mut text)?;
    demand(text == "new", "who has the file open keeps it")?;
    fs::create_dir_all(folder.join("a/b"))?;
    fs::rename(folder.join("a"), folder.join("c"))?;
    demand(folder.join("c/b").is_dir(), "a folder moves with what is in it")
}

fn map(folder: &Path) -> io::Result<()> {
    const LENGTH: NonZeroUsize = NonZeroUsize::new(3 * 4096).expect("it is not zero");
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(folder.join("f"))?;
    file.set_len(LENGTH.get() as u64)?;
    let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses the place, and the file is as long as the map.
    let place = unsafe { mmap(None, LENGTH, flags, MapFlags::MAP_SHARED, &file, 0) }?;
    // SAFETY: the page is mapped, and nobody else has the pointer.
    unsafe { place.add(5000).cast::<u8>().write(b'x') };
    // SAFETY: the range is the map's.
    unsafe { msync(place, LENGTH.get(), MsFlags::MS_SYNC) }?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5000)?;
    file.write_all_at(b"y", 9000)?;
    // SAFETY: as above.
    let seen = unsafe { place.add(9000).cast::<u8>().read_volatile() };
    // SAFETY: nobody uses it any more.
    unsafe { munmap(place, LENGTH.get()) }?;
    demand(byte == *b"x" && seen == b'y', "the map and the file are one")
}

fn flock(folder: &Path) -> io::Result<()> {
    let path = folder.join("f");
    let held = Flock::lock(File::create(&path)?, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
    let other = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
    demand(other.is_err_and(|(_, e)| e == Errno::EWOULDBLOCK), "a lock keeps others out")?;
    drop(held);
    let other = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
    demand(other.is_ok(), "a lock is given back")
}

fn posix_locks(folder: &Path) -> io::Result<()> {
    let file = File::create(folder.join("f"))?;
    let range = |start: i64| libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: 10,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&range(0)))?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // A child has none of its parent's locks.
            let taken = fcntl(&file, FcntlArg::F_SETLK(&range(5)));
            let free = fcntl(&file, FcntlArg::F_SETLK(&range(10)));
            let is_right = matches!(taken, Err(Errno::EAGAIN | Errno::EACCES)) && free.is_ok();
            std::process::exit(i32::from(!is_right));
        }
        ForkResult::Parent { child } => {
            let ended = waitpid(child, None)?;
            demand(
                matches!(ended, WaitStatus::Exited(_, 0)),
                "a range keeps others out, and no more",
            )
        }
    }
}

fn fsync(folder: &Path) -> io::Result<()> {
    let mut file = File::create(folder.join("f"))?;
    file.write_all(&[7; 100_000])?;
    file.sync_data()?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

fn sparse(folder: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(folder.join("f"))?;
    file.write_all_at(b"end", 1 << 30)?;
    let metadata = file.metadata()?;
    demand(metadata.len() == (1 << 30) + 3, "the length is what was written last")?;
    demand(metadata.blocks() * 512 < 1 << 20, "a hole takes no room")?;
    let mut bytes = [1; 16];
    file.read_exact_at(&mut bytes, 1 << 20)?;
    demand(bytes == [0; 16], "a hole reads as zeroes")?;
    let data = lseek(&file, 0, Whence::SeekData)?;
    demand(data <= 1 << 30, "data is found")?;
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 16)?;
    demand(file.metadata()?.len() == (1 << 30) + 3, "room is not length")
}

fn attributes(folder: &Path) -> io::Result<()> {
    let path = folder.join("f");
    fs::write(&path, "")?;
    xattr::set(&path, "user.note", b"one\0two")?;
    demand(xattr::get(&path, "user.note")?.as_deref() == Some(b"one\0two"), "a value is kept")?;
    demand(xattr::list(&path)?.any(|name| name == "user.note"), "a name is listed")?;
    xattr::remove(&path, "user.note")?;
    demand(xattr::get(&path, "user.note")?.is_none(), "a value is removed")
}

fn many(folder: &Path) -> io::Result<()> {
    for number in 0..10_000 {
        File::create(folder.join(format!("file-{number}")))?;
    }
    let mut names = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    names.dedup();
    demand(names.len() == 10_000, "each is listed once")
}

fn hard_link(folder: &Path) -> io::Result<()> {
    let (one, other) = (folder.join("one"), folder.join("other"));
    fs::write(&one, "x")?;
    fs::hard_link(&one, &other)?;
    let (first, second) = (fs::metadata(&one)?, fs::metadata(&other)?);
    demand(first.ino() == second.ino() && second.nlink() == 2, "two names are one file")?;
    fs::write(&other, "y")?;
    fs::remove_file(&one)?;
    demand(fs::metadata(&other)?.nlink() == 1 && fs::read(&other)? == b"y", "one name is left")
}

fn unlink_open(folder: &Path) -> io::Result<()> {
    let path = folder.join("f");
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
    file.write_all(b"before ")?;
    fs::remove_file(&path)?;
    file.write_all(b"after")?;
    file.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    demand(text == "before after" && file.metadata()?.nlink() == 0, "it lives without a name")?;
    demand(file.as_raw_fd() >= 0 && !path.exists(), "the name is gone")
}

fn append(folder: &Path) -> io::Result<()> {
    let path = folder.join("f");
    let open = || OpenOptions::new().create(true).append(true).open(&path);
    let (mut one, mut other) = (open()?, open()?);
    for _ in 0..100 {
        one.write_all(b"a")?;
        other.write_all(b"b")?;
    }
    demand(fs::read(&path)? == b"ab".repeat(100), "each write is at the end")
}

fn owners(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let path = folder.join("f");
    fs::write(&path, "")?;
    chown(&path, Some(1234), Some(5678))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2751))?;
    let metadata = fs::metadata(&path)?;
    let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    demand(found == (1234, 5678, 0o2751), "owner and mode are kept")
}
