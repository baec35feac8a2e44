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
