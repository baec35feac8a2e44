//! Memory that a running machine does not need.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;

use libc::{PF_W, PT_LOAD, c_int, c_void, dl_phdr_info, size_t};

/// Gives up what only the start needed: unmaps this process's resident program text and constants,
/// and returns freed heap to the host. What is used again comes back from the page cache by a
/// minor fault, so a machine that has come up holds the pages of its exit loop instead of those of
/// the command line, the kernel loader and devices' initialisation.
///
/// Loses nothing: pages that differ from their file, by a debugger's breakpoint or a relocation, stay.
pub(crate) fn release_startup_memory() {
    // Without /proc nothing is given up.
    if let Ok(pagemap) = File::open("/proc/self/pagemap") {
        for segment in read_only_segments() {
            // As far as it goes.
            let _ = release_file_pages(&pagemap, segment);
        }
    }
    // SAFETY: glibc's allocator may be trimmed at any time; it takes its own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The page-aligned addresses of every loaded object's segments that are not writable.
fn read_only_segments() -> Vec<Range<u64>> {
    let mut segments: Vec<Range<u64>> = Vec::new();
    // SAFETY: `collect` matches the callback's type and is not unwound through (a `Vec` that cannot
    // grow aborts); the pointer that is passed on to it is to a live `Vec` of the type it expects.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut segments).cast()) };
    segments
}

unsafe extern "C" fn collect(info: *mut dl_phdr_info, _: size_t, segments: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr(3) passes a valid structure, whose `dlpi_phdr` points to `dlpi_phnum`
    // program headers, for the time of this call.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    // SAFETY: `read_only_segments` passes this, and does not touch it during the call.
    let segments = unsafe { &mut *segments.cast::<Vec<Range<u64>>>() };
    for header in headers.iter().filter(|h| h.p_type == PT_LOAD && h.p_flags & PF_W == 0) {
        let start = (base + header.p_vaddr) & !(PAGE - 1);
        let end = (base + header.p_vaddr + header.p_memsz).next_multiple_of(PAGE);
        segments.push(start..end);
    }
    0
}

/// Unmaps those pages of `range` that are still the page cache's.
fn release_file_pages(pagemap: &File, range: Range<u64>) -> io::Result<()> {
    let mut entries = vec![0; (range.end - range.start) as usize / PAGE as usize * 8];
    pagemap.read_exact_at(&mut entries, range.start / PAGE * 8)?;
    let is_file_page = |entry: &[u8]| entry[7] & FILE_PAGE != 0;
    let pages: Vec<bool> = entries.chunks_exact(8).map(is_file_page).collect();
    let mut address = range.start;
    for run in pages.chunk_by(|a, b| a == b) {
        let length = run.len() as u64 * PAGE;
        if run[0] {
            let start = ptr::with_exposed_provenance_mut::<c_void>(address as usize);
            // SAFETY: the kernel has just said that these pages are those of a file, so that the next
            // access reads them from there as they are now: a private mapping's page that was written
            // to would be anonymous, and a segment that is not writable is not written to meanwhile.
            // A failure changes nothing.
            unsafe { libc::madvise(start, length as usize, libc::MADV_DONTNEED) };
        }
        address += length;
    }
    Ok(())
}

/// x86-64's.
const PAGE: u64 = 4096;
/// Bit 61 of a pagemap entry, in its last byte: a page of a file, or shared anonymous memory
/// (Documentation/admin-guide/mm/pagemap.rst). Not set for pages that are not present.
const FILE_PAGE: u8 = 1 << (61 - 56);

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    /// Pages of this process that are mapped from files.
    fn resident_file_pages() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(2).unwrap().parse().unwrap()
    }

    /// The other tests of this process run meanwhile, and their code would come back at once.
    #[test]
    fn text_goes_and_comes_back() {
        let name = concat!(module_path!(), "::alone").split_once("::").unwrap().1;
        let program = std::env::current_exe().unwrap();
        let alone = Command::new(program).args(["--exact", name, "--ignored"]).output().unwrap();
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(alone.status.success() && said.contains("1 passed"), "{alone:?}");
    }

    #[test]
    #[ignore = "run by text_goes_and_comes_back, in a process of its own"]
    fn alone() {
        // All of it, however little the start needed and the host has taken back since.
        for page in read_only_segments().into_iter().flat_map(|s| s.step_by(PAGE as usize)) {
            let page = ptr::with_exposed_provenance::<u8>(page as usize);
            // SAFETY: a page of a segment of this process, which is mapped and may be read.
            unsafe { page.read_volatile() };
        }
        let before = resident_file_pages();
        let text: u64 = format!("{}", 6 * 7).parse().unwrap();
        release_startup_memory();
        assert!(resident_file_pages() < before);
        assert_eq!(format!("{}", 6 * 7).parse(), Ok(text));
    }

    #[test]
    fn a_page_that_was_written_to_stays() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 3 * PAGE as usize], 0).unwrap();
        let (length, access) = (3 * PAGE as usize, libc::PROT_READ | libc::PROT_WRITE);
        let (none, fd) = (ptr::null_mut(), file.as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice.
        let map = unsafe { libc::mmap(none, length, access, libc::MAP_PRIVATE, fd, 0) };
        assert_ne!(map, libc::MAP_FAILED);
        // SAFETY: the mapping made above, which stays and which only this test knows.
        let bytes = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>(), length) };
        // A breakpoint, say.
        bytes[PAGE as usize + 1] = 0xCC;
        assert_eq!(bytes.iter().step_by(PAGE as usize).copied().sum::<u8>(), 3);
        let start = map.expose_provenance() as u64;
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        release_file_pages(&pagemap, start..start + 3 * PAGE).unwrap();
        assert_eq!(bytes[PAGE as usize + 1], 0xCC);
        assert_eq!((bytes[0], bytes[2 * PAGE as usize]), (1, 1));
    }
}
