//! Getting a vCPU out of the guest from another thread.
//!
//! A signal alone is lost when it arrives just before KVM_RUN. So `immediate_exit` is set first,
//! which makes KVM_RUN return at once, and the signal then ends a KVM_RUN that is under way
//! (Documentation/virt/kvm/api.rst, "immediate_exit").

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};

use kvm_bindings::kvm_run;
use kvm_ioctls::{Error, VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::poison::unpoisoned;

/// The page that a vCPU shares with KVM. It stays mapped as long as the vCPU's fd is open.
#[derive(Clone, Copy)]
struct RunPage(NonNull<kvm_run>);

// SAFETY: the pointer is to a mapping, not to anything of the thread that made it.
unsafe impl Send for RunPage {}

impl RunPage {
    /// # Safety
    /// The vCPU's fd is open.
    unsafe fn set_immediate_exit(self, value: u8) {
        // SAFETY: the page is mapped, by the caller's promise; the byte is properly aligned and is
        // only ever accessed by KVM and by this atomic store.
        let flag = unsafe { AtomicU8::from_ptr(&raw mut (*self.0.as_ptr()).immediate_exit) };
        flag.store(value, Ordering::SeqCst);
    }
}

/// A return from the guest, with what [`VcpuExit`] leaves out.
pub struct GuestExit<'a> {
    /// Why KVM_RUN returned.
    pub reason: VcpuExit<'a>,
    /// After port I/O, the bytes of each single access, of which `reason` has the sum.
    pub io_width: usize,
    /// After an internal error, which: KVM_INTERNAL_ERROR_*.
    pub suberror: u32,
}

/// A vCPU whose runs a kick ends.
pub struct KickableVcpu<'a> {
    fd: &'a mut VcpuFd,
    page: RunPage,
}

impl KickableVcpu<'_> {
    /// Takes back what a kick asked for, so that the next run enters the guest.
    pub fn clear_exit_request(&self) {
        // SAFETY: the fd is open, as it is borrowed here.
        unsafe { self.page.set_immediate_exit(0) };
    }

    /// KVM_RUN.
    ///
    /// # Errors
    /// EINTR after a kick; others are KVM's.
    pub fn run(&mut self) -> Result<GuestExit<'_>, Error> {
        let page = self.page.0.as_ptr();
        let reason = self.fd.run()?;
        let (mut io_width, mut suberror) = (1, 0);
        match reason {
            VcpuExit::IoIn(..) | VcpuExit::IoOut(..) => {
                // SAFETY: the page is mapped as long as the fd, borrowed here, is open. KVM writes
                // it only during KVM_RUN, and has just filled this member of the union.
                io_width = usize::from(unsafe { (*page).__bindgen_anon_1.io.size }).max(1);
            }
            VcpuExit::InternalError => {
                // SAFETY: as above.
                suberror = unsafe { (*page).__bindgen_anon_1.internal.suberror };
            }
            _ => {}
        }
        Ok(GuestExit { reason, io_width, suberror })
    }

    /// For KVM's other calls.
    pub fn fd(&self) -> &VcpuFd {
        self.fd
    }
}

/// Whom a kick reaches: there is one only while [`Kicker::kickable`] runs, which borrows the vCPU's
/// fd and does so on this thread.
struct Target {
    page: RunPage,
    thread: libc::pthread_t,
}

/// Interrupts the thread of one vCPU, from any other.
#[derive(Clone, Default)]
pub struct Kicker(Arc<Mutex<Option<Target>>>);

impl Kicker {
    /// Calls `body`, on this thread, with `fd` in a form that kicks reach. They do until it returns,
    /// and interrupt its blocking system calls as well.
    pub fn kickable<T>(&self, fd: &mut VcpuFd, body: impl FnOnce(&mut KickableVcpu<'_>) -> T) -> T {
        /// Also when `body` panics.
        struct TakeOut<'a>(&'a Kicker);
        impl Drop for TakeOut<'_> {
            fn drop(&mut self) {
                *self.0.lock() = None;
            }
        }

        install_handler();
        let page = RunPage(NonNull::from(fd.get_kvm_run()));
        // SAFETY: no preconditions.
        let thread = unsafe { libc::pthread_self() };
        *self.lock() = Some(Target { page, thread });
        let _take_out = TakeOut(self);
        body(&mut KickableVcpu { fd, page })
    }

    /// Ends the KVM_RUN under way, or the next one, and interrupts a blocking system call. Tells
    /// whether there was a thread to kick.
    pub fn kick(&self) -> bool {
        let target = self.lock();
        let Some(Target { page, thread }) = &*target else { return false };
        // SAFETY: `kickable` has not returned, as it takes the target out under the lock held here:
        // the fd that it borrows is open.
        unsafe { page.set_immediate_exit(1) };
        // SAFETY: for the same reason the thread, which is inside `kickable`, is alive.
        unsafe { libc::pthread_kill(*thread, SIGRTMIN()) };
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<Target>> {
        unpoisoned(self.0.lock())
    }
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The signal has to be caught, not ignored, to interrupt a system call.
fn install_handler() {
    static ONCE: Once = Once::new();
    // Fails only for a signal number that does not exist.
    ONCE.call_once(|| {
        let _ = register_signal_handler(SIGRTMIN(), ignore);
    });
}
