//! Getting a vCPU out of the guest from another thread.
//!
//! A signal alone is lost when it arrives just before KVM_RUN. So `immediate_exit` is set first,
//! which makes KVM_RUN return at once, and the signal then ends a KVM_RUN that is under way
//! (Documentation/virt/kvm/api.rst, "immediate_exit").

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The page that a vCPU shares with KVM, beside what `VcpuFd::run` hands out.
pub struct RunPage(*mut kvm_run);

// SAFETY: the pointer is to a mapping, not to anything of the thread that made it.
unsafe impl Send for RunPage {}

impl RunPage {
    /// The page of `fd`, which has to outlive what is returned.
    pub fn of(fd: &mut VcpuFd) -> Self {
        Self(fd.get_kvm_run())
    }

    /// After a port I/O exit: bytes of each single access. `VcpuExit` has only their sum.
    pub fn io_width(&self) -> usize {
        // SAFETY: the page is mapped as long as the vCPU's fd lives, every bit pattern of the
        // union is a valid `io`, and KVM writes it only during KVM_RUN on this thread.
        let width = unsafe { (*self.0).__bindgen_anon_1.io.size };
        usize::from(width).max(1)
    }

    /// After KVM_EXIT_INTERNAL_ERROR: which.
    pub fn suberror(&self) -> u32 {
        // SAFETY: as in `io_width`.
        unsafe { (*self.0).__bindgen_anon_1.internal.suberror }
    }

    /// Takes back what a kick asked for, so that the next KVM_RUN enters the guest.
    pub fn clear_exit_request(&self) {
        self.set_immediate_exit(0);
    }

    fn set_immediate_exit(&self, value: u8) {
        // SAFETY: as in `io_width`; the byte is properly aligned and is only ever accessed by
        // KVM and by this atomic store.
        let flag = unsafe { AtomicU8::from_ptr(&raw mut (*self.0).immediate_exit) };
        flag.store(value, Ordering::SeqCst);
    }
}

struct Target {
    page: RunPage,
    thread: libc::pthread_t,
}

/// Interrupts one vCPU thread while it has [`Kicker::enter`]ed.
#[derive(Clone, Default)]
pub struct Kicker(Arc<Mutex<Option<Target>>>);

/// Between entering and dropping this, a kick reaches the thread.
pub struct Kickable<'a>(&'a Kicker);

impl Kicker {
    /// Makes the calling thread, which runs `fd`, the one that is kicked.
    pub fn enter(&self, fd: &mut VcpuFd) -> Kickable<'_> {
        install_handler();
        // SAFETY: no preconditions.
        let thread = unsafe { libc::pthread_self() };
        *self.lock() = Some(Target { page: RunPage::of(fd), thread });
        Kickable(self)
    }

    /// Ends the KVM_RUN under way, or the next one, and interrupts a blocking system call. Tells
    /// whether there was a thread to kick.
    pub fn kick(&self) -> bool {
        let target = self.lock();
        let Some(target) = &*target else { return false };
        target.page.set_immediate_exit(1);
        // SAFETY: the thread is alive: it takes itself out, under the lock held here, before it
        // ends.
        unsafe { libc::pthread_kill(target.thread, SIGRTMIN()) };
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Target>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Kickable<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The signal has to be caught, not ignored, to interrupt a system call.
fn install_handler() {
    static ONCE: Once = Once::new();
    // Fails only for a signal number that does not exist.
    ONCE.call_once(|| {
        drop::<Result<(), io::Error>>(
            register_signal_handler(SIGRTMIN(), ignore).map_err(Into::into),
        )
    });
}
