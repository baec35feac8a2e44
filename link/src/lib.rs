//! What std wants of libgcc and the C library, and executables that abort on a panic do without.
//!
//! Release builds abort on a panic, after its message and place. The tables by which a stack could be unwound, an
//! eighth of `isolab`, are then of use for backtraces alone, and those name nothing in an executable without symbols.
//! `release.ld` leaves the tables out; libgcc's unwinder, which std asks for backtraces, would abort where it does not
//! find its own, so that a mere `RUST_BACKTRACE=1` ended whoever makes an `anyhow::Error`. In its place is this one,
//! to which each stack has ended.
//!
//! An executable's package names `executable.rs` as its build script and this crate in its `main.rs`
//! (`use isolab_link as _;`). Other builds unwind as ever.

#[cfg(panic = "abort")]
mod unwinder {
    use std::ffi::{c_int, c_void};

    /// `_URC_END_OF_STACK` of the Itanium C++ ABI's exception handling, section 1.2.1.
    const END_OF_STACK: c_int = 5;

    /// Calls `_trace` for no frame.
    // SAFETY: the name is the unwinder's, of which the executable has no other: whoever links libgcc's as well is
    // told of a duplicate. The signature is section 1.2's of the LSB's `libgcc_s`.
    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Backtrace(_trace: *const c_void, _argument: *mut c_void) -> c_int {
        END_OF_STACK
    }

    /// What is called with a frame or an exception in hand, of which there is none: by the personality functions of std
    /// and the C library, and by pthread_exit(3) and pthread_cancel(3), which nothing here uses.
    macro_rules! not_reached {
        ($($name:ident)*) => {$(
            // SAFETY: as above; never returning, it breaks no promise of its declarations elsewhere.
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                std::process::abort()
            }
        )*};
    }

    not_reached! {
        _Unwind_DeleteException
        _Unwind_FindEnclosingFunction
        _Unwind_ForcedUnwind
        _Unwind_GetCFA
        _Unwind_GetDataRelBase
        _Unwind_GetIP
        _Unwind_GetIPInfo
        _Unwind_GetLanguageSpecificData
        _Unwind_GetRegionStart
        _Unwind_GetTextRelBase
        _Unwind_RaiseException
        _Unwind_Resume
        _Unwind_SetGR
        _Unwind_SetIP
        __gcc_personality_v0
    }
}

#[cfg(panic = "abort")]
mod stack {
    use std::ffi::{c_int, c_ulong, c_void};

    /// ENOSYS of Linux on x86-64.
    const UNKNOWN: c_int = 38;

    /// Does not know where the stack of `_thread` is. std asks before `main` and in each thread, so that its handler of
    /// SIGSEGV has a message for a stack that overflows. The guard page is there without it, and the process
    /// ends by the signal. The C library's own answer reads /proc/self/maps by sscanf(3), which brings the numbers of
    /// all widths with it, 90 KB of code.
    // SAFETY: pthread_getattr_np(3)'s name and signature; having failed, it owes nothing to its caller, and std takes a
    // failure for a stack without a known guard.
    #[unsafe(no_mangle)]
    extern "C" fn pthread_getattr_np(_thread: c_ulong, _attributes: *mut c_void) -> c_int {
        UNKNOWN
    }
}

#[cfg(panic = "abort")]
mod messages {
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::io::Write;
    use std::ptr::null_mut;

    /// EINVAL and ERANGE of Linux on x86-64.
    const INVALID: c_int = 22;
    const TOO_LONG: c_int = 34;

    unsafe extern "C" {
        /// The C library's text of an error number, never translated; null of one that is none (glibc 2.32).
        fn strerrordesc_np(number: c_int) -> *const c_char;
    }

    /// Writes the text of an error number, of which std asks. The C library's own would look for a translation, which
    /// takes character sets from shared libraries, and prints by a printf(3) that knows all formats.
    // SAFETY: strerror_r(3)'s name, for callers of POSIX's, and signature.
    #[unsafe(no_mangle)]
    extern "C" fn __xpg_strerror_r(number: c_int, buffer: *mut c_char, length: usize) -> c_int {
        if length == 0 {
            return TOO_LONG;
        }
        // SAFETY: `buffer` has `length` bytes, as the caller of strerror_r(3) promises; nobody else writes there.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        // SAFETY: takes any number.
        let text = unsafe { strerrordesc_np(number) };
        // One byte is for the end.
        let mut rest = &mut buffer[..length - 1];
        let (written, code) = if text.is_null() {
            (write!(rest, "Unknown error {number}"), INVALID)
        } else {
            // SAFETY: a string of the C library's, which stays.
            (rest.write_all(unsafe { CStr::from_ptr(text) }.to_bytes()), 0)
        };
        let left = rest.len();
        buffer[length - 1 - left] = 0;
        if written.is_ok() { code } else { TOO_LONG }
    }

    /// Ends the process by what the C library has found wrong with itself. Its own would say that by printf(3), and
    /// translated.
    // SAFETY: the name and signature of what the C library's assert(3) calls; it never returns.
    #[unsafe(no_mangle)]
    extern "C" fn __assert_fail(
        assertion: *const c_char,
        _file: *const c_char,
        _line: c_uint,
        _function: *const c_char,
    ) -> ! {
        // SAFETY: assert(3) gives a string.
        let text = unsafe { CStr::from_ptr(assertion) };
        // There is nobody to be told that it cannot be told.
        let _ = std::io::stderr().write_all(text.to_bytes());
        std::process::abort()
    }

    /// Finds no symbol: std looks by this for functions that newer C libraries have, and does without. The C library's own
    /// can load shared libraries for it.
    // SAFETY: dlsym(3)'s name and signature; null is its answer where there is no such symbol.
    #[unsafe(no_mangle)]
    extern "C" fn dlsym(_handle: *mut c_void, _symbol: *const c_char) -> *mut c_void {
        null_mut()
    }

    /// The text as it is: what the C library says is never translated, which takes a catalogue's character set, and that a
    /// shared library.
    // SAFETY: the name and signature by which the C library asks for its texts; a text without a translation is the answer
    // wherever there is no catalogue.
    #[unsafe(no_mangle)]
    extern "C" fn __dcgettext(
        _domain: *const c_char,
        text: *const c_char,
        _category: c_int,
    ) -> *const c_char {
        text
    }

    /// Prints nothing: of what the executables have of the C library, only its reader of /etc/host.conf would tell something
    /// by this.
    // SAFETY: the name by which the C library prints on stderr. Its arguments are the caller's to remove from the stack,
    // however many there are.
    #[unsafe(no_mangle)]
    extern "C" fn __fxprintf() -> c_int {
        -1
    }

    /// Prints nothing: malloc_stats(3) and malloc_info(3) are the C library's only callers, and nobody calls those.
    // SAFETY: fprintf(3)'s name. Its arguments are the caller's to remove from the stack, however many there are.
    #[unsafe(no_mangle)]
    extern "C" fn fprintf() -> c_int {
        -1
    }
}
