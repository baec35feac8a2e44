//! Memory that a running machine does not need.

use std::ptr;

use libc::{PF_W, PT_LOAD, c_int, c_void, dl_phdr_info, size_t};

/// Gives up what only the start needed: unmaps this process's resident program text and constants,
/// and returns freed heap to the host. What is used again comes back from the page cache by a
/// minor fault, so a machine that has come up holds the pages of its exit loop instead of those of
/// the command line, the kernel loader and devices' initialisation.
///
/// Breakpoints that a debugger has put into the text by then are lost with it.
pub fn release_startup_memory() {
    // SAFETY: `release_text` matches the callback's type, is not unwound through, and ignores the
    // pointer that is passed on to it.
    unsafe { libc::dl_iterate_phdr(Some(release_text), ptr::null_mut()) };
    // SAFETY: glibc's allocator may be trimmed at any time; it takes its own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of one object's read-only segments.
unsafe extern "C" fn release_text(info: *mut dl_phdr_info, _: size_t, _: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr(3) passes a valid structure, whose `dlpi_phdr` points to `dlpi_phnum`
    // program headers, for the time of this call.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    for header in headers.iter().filter(|h| h.p_type == PT_LOAD && h.p_flags & PF_W == 0) {
        let start = (base + header.p_vaddr) & !(PAGE - 1);
        let end = (base + header.p_vaddr + header.p_memsz).next_multiple_of(PAGE);
        let start = ptr::with_exposed_provenance_mut::<c_void>(start as usize);
        // SAFETY: the loader mapped this segment from its file, privately and never writable
        // (x86-64 has no text relocations), so every page of it is still as it is in the file,
        // and the next access reads it from there. A failure changes nothing.
        unsafe { libc::madvise(start, (end - start as u64) as usize, libc::MADV_DONTNEED) };
    }
    0
}

/// x86-64's.
const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
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
        let before = resident_file_pages();
        let text: u64 = format!("{}", 6 * 7).parse().unwrap();
        release_startup_memory();
        assert!(resident_file_pages() < before);
        assert_eq!(format!("{}", 6 * 7).parse(), Ok(text));
    }
}
