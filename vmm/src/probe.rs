//! Can this /dev/kvm run a guest kernel? Found out by running one of a few instructions.
//!
//! Some hosts offer a /dev/kvm that creates VMs but cannot run an ordinary kernel: it interprets
//! kernel-mode code, loses `syscall`, or lacks XSAVE. The capabilities say nothing about that, so
//! [`probe`] enters long mode, times a loop at CPL 0, saves and restores extended state, drops to
//! CPL 3 and comes back by `syscall` and by `int 0x80`, each reported by an `out`.

use std::arch::global_asm;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use serde::Serialize;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::memory::GuestRam;

/// Kernel-mode instructions per second below which a KVM is interpreting. Real hardware does
/// billions, QEMU's TCG some hundred million, an interpreting KVM about one million.
const SLOWEST_USABLE: f64 = 10e6;
/// How long the probe guest may take.
const TIME_LIMIT: Duration = Duration::from_secs(3);
/// Iterations of the timed loop, of two instructions each.
const LOOP_ITERATIONS: u64 = 500_000;

/// What helps where KVM cannot run guests.
pub const HINT: &str = "use a host with hardware virtualisation, or run the command in an emulated \
                        one: scripts/kvm-host run -- COMMAND";

/// What the probe guest managed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Millions of CPL 0 instructions a second; absent when the loop did not end in time.
    pub kernel_mode_mips: Option<f64>,
    /// XSAVE and XRSTOR work at CPL 0, or where CPUID has none, FXSAVE and FXRSTOR.
    pub xsave: bool,
    /// `syscall` from CPL 3 enters the handler at CPL 0.
    pub syscall: bool,
    /// `int 0x80` from CPL 3 enters the handler at CPL 0.
    pub interrupt: bool,
    /// How the guest ended when it did not reach its end.
    pub stopped_by: Option<String>,
}

impl Report {
    /// Whether kernel-mode code ran far too slowly to be run by a processor.
    pub fn kernel_mode_is_interpreted(&self) -> bool {
        self.kernel_mode_mips.is_some_and(|mips| mips * 1e6 < SLOWEST_USABLE)
    }

    /// Why this KVM cannot run a guest kernel, or `None` when it can.
    pub fn fault(&self) -> Option<String> {
        let mut faults = Vec::new();
        match self.kernel_mode_mips {
            Some(mips) if self.kernel_mode_is_interpreted() => {
                faults.push(format!("it interprets kernel-mode code ({mips:.1} MIPS)"));
            }
            None => faults.push("kernel-mode code does not run".to_owned()),
            Some(_) => {}
        }
        let steps = [
            (self.xsave, "XSAVE fails in kernel mode"),
            (self.syscall, "`syscall` does not enter kernel mode"),
            (self.interrupt, "`int` does not enter kernel mode"),
        ];
        // A guest that stops at one step says nothing about the later ones.
        if let Some((_, fault)) = steps.iter().find(|(works, _)| !works) {
            let how = self.stopped_by.as_deref().map_or(String::new(), |by| format!(" ({by})"));
            faults.push(format!("{fault}{how}"));
        }
        (!faults.is_empty()).then(|| faults.join("; "))
    }
}

/// Why there was nothing to probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// /dev/kvm cannot be opened.
    #[error("cannot open /dev/kvm{way_out}")]
    Open {
        /// What the operator can do, in parentheses, or nothing.
        way_out: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// /dev/kvm speaks another API.
    #[error("/dev/kvm has API version {0}, not 12")]
    ApiVersion(i32),
    /// A KVM ioctl was refused while the probe guest was set up.
    #[error("KVM refuses to {action}")]
    Setup {
        /// The ioctl in words: a verb and its object.
        action: &'static str,
        /// The host's answer.
        source: io::Error,
    },
}

fn not_opened(source: io::Error) -> ProbeError {
    let way_out = match source.kind() {
        io::ErrorKind::NotFound => " (load kvm_intel or kvm_amd, or switch on virtualisation)",
        io::ErrorKind::PermissionDenied => " (run as root or join the group that owns it, kvm)",
        _ => "",
    };
    ProbeError::Open { way_out, source }
}

fn setup<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> ProbeError {
    move |error| ProbeError::Setup { action, source: error.into() }
}

/// Opens /dev/kvm and checks its API version.
///
/// # Errors
/// [`ProbeError::Open`] or [`ProbeError::ApiVersion`].
pub fn open_kvm() -> Result<Kvm, ProbeError> {
    let kvm = Kvm::new().map_err(|e| not_opened(e.into()))?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        other => Err(ProbeError::ApiVersion(other)),
    }
}

/// The capabilities a machine of ours uses, by their names in linux/kvm.h, and whether they are
/// there.
pub fn capabilities(kvm: &Kvm) -> Vec<(&'static str, bool)> {
    [
        ("KVM_CAP_IRQCHIP", Cap::Irqchip),
        ("KVM_CAP_PIT2", Cap::Pit2),
        ("KVM_CAP_IRQFD", Cap::Irqfd),
        ("KVM_CAP_IOEVENTFD", Cap::Ioeventfd),
        ("KVM_CAP_USER_MEMORY", Cap::UserMemory),
        ("KVM_CAP_SET_TSS_ADDR", Cap::SetTssAddr),
        ("KVM_CAP_EXT_CPUID", Cap::ExtCpuid),
        ("KVM_CAP_IMMEDIATE_EXIT", Cap::ImmediateExit),
        ("KVM_CAP_SIGNAL_MSI", Cap::SignalMsi),
        ("KVM_CAP_TSC_DEADLINE_TIMER", Cap::TscDeadlineTimer),
        ("KVM_CAP_XSAVE", Cap::Xsave),
    ]
    .map(|(name, cap)| (name, kvm.check_extension(cap)))
    .to_vec()
}

/// Runs the probe guest, for at most three seconds.
///
/// # Errors
/// [`ProbeError`] when no guest could be set up; what the guest then fails at is in the report.
pub fn probe(kvm: &Kvm) -> Result<Report, ProbeError> {
    let guest = ProbeGuest::new(kvm)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    vmm_sys_util::signal::register_signal_handler(libc::SIGRTMIN(), on_kick)
        .map_err(setup("have its vCPU interrupted"))?;
    let runner = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            // A failed send means that nobody waits any more.
            let _ = sender.send(guest.run(&stop));
        }
    });
    let result = match receiver.recv_timeout(TIME_LIMIT) {
        Err(RecvTimeoutError::Timeout) => {
            stop.store(true, Ordering::Relaxed);
            interrupt_until_it_reports(&runner, &receiver)
        }
        other => other.ok(),
    };
    let report = result.unwrap_or_else(|| Report {
        stopped_by: Some("the probe's thread died".to_owned()),
        ..Report::default()
    });
    // The thread has reported or died, so this does not block.
    let _ = runner.join();
    Ok(report)
}

/// A signal that arrives just before KVM_RUN is lost, so it is sent until the thread answers.
fn interrupt_until_it_reports(
    runner: &thread::JoinHandle<()>,
    receiver: &mpsc::Receiver<Report>,
) -> Option<Report> {
    loop {
        // SAFETY: the thread has not been joined, so its pthread_t is valid; the signal's handler
        // was installed by `probe` and does nothing.
        unsafe { libc::pthread_kill(runner.as_pthread_t(), libc::SIGRTMIN()) };
        match receiver.recv_timeout(Duration::from_millis(10)) {
            Err(RecvTimeoutError::Timeout) => {}
            other => return other.ok(),
        }
    }
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

// What the guest reports through `PORT`.
const PORT: u16 = 0x10;
const STARTED: u8 = 0;
const LOOP_DONE: u8 = 1;
const XSAVE_DONE: u8 = 2;
const SYSCALL_DONE: u8 = 3;
const INTERRUPT_DONE: u8 = 4;

// CPUID leaf 1, ECX.
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;

// The guest's memory: 64 KiB, mapped one to one by a single 2 MiB page that CPL 3 may use too.
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const PML4: u64 = 0x4000;
const PDPT: u64 = 0x5000;
const PD: u64 = 0x6000;
const CODE: u64 = 0x8000;
const XSAVE_AREA: u64 = 0xc000;
const USER_STACK: u64 = 0xe000;
const KERNEL_STACK: u64 = 0x10000;
const RAM_SIZE: usize = 0x10000;

// Selectors in the order that SYSCALL and SYSRET derive them from STAR (AMD APM 2, 6.1.1).
const KERNEL_CS: u16 = 0x08;
const KERNEL_DS: u16 = 0x10;
const SYSRET_BASE: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x30;
const GDT_ENTRIES: [u64; 8] = [
    0,
    0x00af_9b00_0000_ffff, // 0x08: CPL 0 code, 64-bit
    0x00cf_9300_0000_ffff, // 0x10: CPL 0 data
    0,                     // 0x18: SYSRET to 32-bit code, unused
    0x00cf_f300_0000_ffff, // 0x20: CPL 3 data
    0x00af_fb00_0000_ffff, // 0x28: CPL 3 code, 64-bit
    0x0000_8b00_3000_0067, // 0x30: TSS at 0x3000, busy, 104 bytes
    0,
];

global_asm!(
    ".pushsection .rodata.isolab_probe, \"a\"",
    "isolab_probe_start:",
    "    mov al, {started}",
    "    out {port}, al",
    "    mov ecx, {iterations}",
    "2:  dec ecx",
    "    jnz 2b",
    "    mov al, {loop_done}",
    "    out {port}, al",
    // What a kernel does as well: without OSXSAVE, which CR4 has where KVM offers XSAVE, FXSAVE.
    "    mov eax, 1",
    "    cpuid",
    "    mov edi, {xsave_area}",
    "    test ecx, {osxsave}",
    "    jz 4f",
    // XCR0 = x87 | SSE, then a save and a restore of just these.
    "    xor ecx, ecx",
    "    xor edx, edx",
    "    mov eax, 3",
    "    xsetbv",
    "    xsave [rdi]",
    "    xrstor [rdi]",
    "    jmp 5f",
    "4:  fxsave [rdi]",
    "    fxrstor [rdi]",
    "5:  mov al, {xsave_done}",
    "    out {port}, al",
    // To CPL 3: SS, RSP, RFLAGS, CS, RIP.
    "    push 0x23",
    "    push {user_stack}",
    "    push 2",
    "    push 0x2b",
    "    lea rax, [rip + isolab_probe_user]",
    "    push rax",
    "    iretq",
    "isolab_probe_user:",
    "    syscall",
    "    int 0x80",
    "3:  jmp 3b",
    "isolab_probe_syscall:",
    "    mov dx, cs",
    "    test dl, 3",
    "    jnz 3b",
    "    mov al, {syscall_done}",
    "    out {port}, al",
    "    sysretq",
    "isolab_probe_interrupt:",
    "    mov dx, cs",
    "    test dl, 3",
    "    jnz 3b",
    "    mov al, {interrupt_done}",
    "    out {port}, al",
    "    hlt",
    "isolab_probe_end:",
    ".popsection",
    started = const STARTED,
    loop_done = const LOOP_DONE,
    xsave_done = const XSAVE_DONE,
    syscall_done = const SYSCALL_DONE,
    interrupt_done = const INTERRUPT_DONE,
    port = const PORT,
    iterations = const LOOP_ITERATIONS,
    osxsave = const OSXSAVE,
    xsave_area = const XSAVE_AREA,
    user_stack = const USER_STACK,
);

unsafe extern "C" {
    static isolab_probe_start: u8;
    static isolab_probe_syscall: u8;
    static isolab_probe_interrupt: u8;
    static isolab_probe_end: u8;
}

/// The guest's code, and where in it the two handlers are.
fn guest_code() -> (&'static [u8], u64, u64) {
    let start = &raw const isolab_probe_start;
    let at = |label: *const u8| label as usize - start as usize;
    let length = at(&raw const isolab_probe_end);
    // SAFETY: start and end are labels of one block in .rodata, written by the global_asm above,
    // which nothing ever changes.
    let code = unsafe { std::slice::from_raw_parts(start, length) };
    let syscall = at(&raw const isolab_probe_syscall) as u64;
    let interrupt = at(&raw const isolab_probe_interrupt) as u64;
    (code, CODE + syscall, CODE + interrupt)
}

struct ProbeGuest {
    vcpu: VcpuFd,
    // Dropped after the vCPU: KVM reads the RAM as long as the VM lives.
    _vm: VmFd,
    _ram: GuestRam,
}

impl ProbeGuest {
    fn new(kvm: &Kvm) -> Result<Self, ProbeError> {
        let vm = kvm.create_vm().map_err(setup("create a VM"))?;
        let (code, syscall, interrupt) = guest_code();
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_SIZE)])
            .map_err(|e| setup("have memory for a guest")(io::Error::other(e)))?;
        fill(&ram, code, interrupt)
            .map_err(|e| setup("have its guest's memory filled")(io::Error::other(e)))?;
        let host_address = ram
            .get_host_address(GuestAddress(0))
            .map_err(|e| setup("find its guest's memory")(io::Error::other(e)))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: RAM_SIZE as u64,
            userspace_addr: host_address as u64,
        };
        // SAFETY: the region is the whole of `ram`, which lives in the same struct as the VM and
        // is dropped after it.
        unsafe { vm.set_user_memory_region(region) }.map_err(setup("give a VM memory"))?;
        let vcpu = vm.create_vcpu(0).map_err(setup("create a vCPU"))?;
        let cpuid = kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(setup("tell its CPUID"))?;
        set_registers(&vcpu, &cpuid, syscall)?;
        Ok(Self { vcpu, _vm: vm, _ram: ram })
    }

    fn run(mut self, stop: &AtomicBool) -> Report {
        let mut report = Report::default();
        let mut loop_started = Instant::now();
        report.stopped_by = loop {
            if stop.load(Ordering::Relaxed) {
                break Some(format!("no answer within {} s", TIME_LIMIT.as_secs()));
            }
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, &[step])) => match step {
                    STARTED => loop_started = Instant::now(),
                    LOOP_DONE => {
                        let seconds = loop_started.elapsed().as_secs_f64();
                        report.kernel_mode_mips =
                            Some(2.0 * LOOP_ITERATIONS as f64 / seconds / 1e6);
                    }
                    XSAVE_DONE => report.xsave = true,
                    SYSCALL_DONE => report.syscall = true,
                    INTERRUPT_DONE => report.interrupt = true,
                    other => break Some(format!("the guest reported step {other}")),
                },
                Ok(VcpuExit::Hlt) => break None,
                Ok(VcpuExit::Shutdown) => break Some("triple fault".to_owned()),
                Ok(VcpuExit::InternalError) => break Some("emulation failure".to_owned()),
                Ok(exit) => break Some(format!("exit {exit:?}")),
                Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {}
                Err(e) => break Some(format!("KVM_RUN: {e}")),
            }
        };
        report
    }
}

fn fill(ram: &GuestRam, code: &[u8], interrupt: u64) -> Result<(), vm_memory::GuestMemoryError> {
    for (i, entry) in GDT_ENTRIES.iter().enumerate() {
        ram.write_obj(*entry, GuestAddress(GDT + 8 * i as u64))?;
    }
    // An interrupt gate that CPL 3 may call (Intel SDM 3A, figure 6-8).
    let gate = (interrupt & 0xffff)
        | (u64::from(KERNEL_CS) << 16)
        | (0xee00 << 32)
        | ((interrupt >> 16 & 0xffff) << 48);
    ram.write_obj(gate, GuestAddress(IDT + 16 * 0x80))?;
    ram.write_obj(KERNEL_STACK, GuestAddress(TSS + 4))?; // RSP0
    const PRESENT_WRITABLE_USER: u64 = 0b111;
    const LARGE_PAGE: u64 = 1 << 7;
    ram.write_obj(PDPT | PRESENT_WRITABLE_USER, GuestAddress(PML4))?;
    ram.write_obj(PD | PRESENT_WRITABLE_USER, GuestAddress(PDPT))?;
    ram.write_obj(LARGE_PAGE | PRESENT_WRITABLE_USER, GuestAddress(PD))?;
    ram.write_slice(code, GuestAddress(CODE))
}

fn set_registers(vcpu: &VcpuFd, cpuid: &CpuId, syscall: u64) -> Result<(), ProbeError> {
    const EFER_SCE_LME_LMA: u64 = 1 | 1 << 8 | 1 << 10;
    const CR0_PE_ET_NE_PG: u64 = 1 | 1 << 4 | 1 << 5 | 1 << 31;
    const CR4_PAE_OSFXSR_OSXMMEXCPT: u64 = 1 << 5 | 1 << 9 | 1 << 10;
    const CR4_OSXSAVE: u64 = 1 << 18;
    const MSR_STAR: u32 = 0xc000_0081;
    const MSR_LSTAR: u32 = 0xc000_0082;

    vcpu.set_cpuid2(cpuid).map_err(setup("set CPUID"))?;
    let mut sregs = vcpu.get_sregs().map_err(setup("tell the special registers"))?;
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: KERNEL_CS,
        type_: 11,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: KERNEL_DS, type_: 3, db: 1, l: 0, ..code };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        selector: TSS_SELECTOR,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, (8 * GDT_ENTRIES.len() - 1) as u16);
    (sregs.idt.base, sregs.idt.limit) = (IDT, 16 * 0x81 - 1);
    sregs.cr0 = CR0_PE_ET_NE_PG;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE_OSFXSR_OSXMMEXCPT;
    let has_xsave = |leaf: &kvm_cpuid_entry2| leaf.function == 1 && leaf.ecx & XSAVE != 0;
    if cpuid.as_slice().iter().any(has_xsave) {
        sregs.cr4 |= CR4_OSXSAVE;
    }
    sregs.efer = EFER_SCE_LME_LMA;
    vcpu.set_sregs(&sregs).map_err(setup("set the special registers"))?;

    let mut regs = vcpu.get_regs().map_err(setup("tell the registers"))?;
    (regs.rip, regs.rsp, regs.rflags) = (CODE, KERNEL_STACK, 2);
    vcpu.set_regs(&regs).map_err(setup("set the registers"))?;

    let star = u64::from(SYSRET_BASE | 3) << 48 | u64::from(KERNEL_CS) << 32;
    let entries = [(MSR_STAR, star), (MSR_LSTAR, syscall)].map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    });
    let msrs = Msrs::from_entries(&entries)
        .map_err(|e| setup("hold two MSRs")(io::Error::other(format!("{e:?}"))))?;
    match vcpu.set_msrs(&msrs).map_err(setup("set STAR and LSTAR"))? {
        2 => Ok(()),
        _ => Err(setup("set STAR and LSTAR")(io::Error::from_raw_os_error(libc::EINVAL))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Report {
        Report {
            kernel_mode_mips: Some(800.0),
            xsave: true,
            syscall: true,
            interrupt: true,
            stopped_by: None,
        }
    }

    #[test]
    fn a_healthy_kvm_has_no_fault() {
        assert_eq!(healthy().fault(), None);
    }

    #[test]
    fn an_interpreter_is_told_by_its_speed() {
        let report = Report { kernel_mode_mips: Some(1.2), ..healthy() };
        assert_eq!(report.fault().as_deref(), Some("it interprets kernel-mode code (1.2 MIPS)"));
    }

    #[test]
    fn only_the_first_failed_step_is_blamed() {
        let report = Report {
            xsave: true,
            syscall: false,
            interrupt: false,
            stopped_by: Some("triple fault".to_owned()),
            ..healthy()
        };
        let fault = report.fault().unwrap();
        assert_eq!(fault, "`syscall` does not enter kernel mode (triple fault)");
    }

    #[test]
    fn the_handlers_lie_inside_the_code() {
        let (code, syscall, interrupt) = guest_code();
        let end = CODE + code.len() as u64;
        assert!(end < XSAVE_AREA);
        assert!(CODE < syscall && syscall < interrupt && interrupt < end);
    }
}
