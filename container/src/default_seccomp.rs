//! The seccomp profile of a container that brings none: which system calls it may make.
//!
//! The facts are those of podman's and Docker's default profiles (containers-common's `seccomp.json`, moby's
//! `profiles/seccomp`); where the two differ, the stricter one's. So a call that reaches much of the kernel behind a
//! new user namespace (mount, unshare, clone with `CLONE_NEW*`) takes CAP_SYS_ADMIN, as in Docker; keys, which are by
//! user id and in no namespace, are out of reach. As in podman, what is denied on purpose fails with EPERM, and what
//! is not known here, such as a call of a newer kernel, with ENOSYS, so that a C library falls back.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use crate::error::Result;
use crate::spec::builder;

/// Allowed to all, by subject.
const ALLOWED: &[&str] = &[
    // Files.
    "access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat \
     faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 \
     fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 \
     futimesat getcwd getdents getdents64 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown \
     lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open \
     openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir readlink \
     readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx \
     symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat \
     utimensat_time64 utimes write writev",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr \
     removexattr setxattr",
    // Asynchronous input and output, but for io_uring, which got around too much.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
     eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll \
     ppoll ppoll_time64 pselect6 pselect6_time64 select",
    // Sockets; socket(2) itself is below.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmmsg_time64 recvmsg \
     sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // Memory.
    "brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore mlock mlock2 \
     mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
     process_mrelease remap_file_pages set_mempolicy",
    // Processes and threads; clone(2) is below.
    "arch_prctl execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv \
     futex_wake get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getsid gettid \
     ioprio_get ioprio_set kill modify_ldt pidfd_getfd pidfd_open pidfd_send_signal prctl process_vm_readv \
     process_vm_writev ptrace restart_syscall rseq sched_get_priority_max sched_get_priority_min sched_getaffinity \
     sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
     sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area \
     set_tid_address setpgid setpriority setsid tgkill tkill uretprobe vfork wait4 waitid waitpid",
    // Signals and timers.
    "alarm getitimer pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaction sigaltstack signal signalfd \
     signalfd4 sigpending sigprocmask sigreturn sigsuspend timer_create timer_delete timer_getoverrun timer_gettime \
     timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
     timerfd_settime64",
    // Time. adjtimex and clock_adjtime tell it; to set it they ask for CAP_SYS_TIME themselves.
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 gettimeofday nanosleep time times",
    // Who one is, and what one may.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 \
     getresuid getresuid32 getrlimit getrusage getuid getuid32 landlock_add_rule landlock_create_ruleset \
     landlock_restrict_self prlimit64 seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
     setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setuid \
     setuid32 ugetrlimit",
    // Interprocess communication, and the rest.
    "getrandom ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat \
     shmctl shmdt shmget sysinfo uname",
];

/// Allowed with the capability, denied without.
const BY_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr \
         move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns \
         statmount syslog umount umount2 unshare",
    ),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
    (Capability::Syslog, "syslog"),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module query_module"),
    (Capability::SysNice, "migrate_pages move_pages set_mempolicy_home_node"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp process_madvise"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
];

/// Denied to all.
const DENIED: &str = "_sysctl add_key bdflush io_uring_enter io_uring_register io_uring_setup kexec_file_load \
     kexec_load keyctl nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname request_key sgetmask ssetmask \
     swapoff swapon sysfs userfaultfd uselib ustat vm86 vm86old vmsplice";

/// Fails with ENOSYS though it is known: its flags are in memory, where no filter sees them, and a C library then
/// uses clone, whose flags are in a register.
const ABSENT: &str = "clone3";

/// `CLONE_NEW*` of `linux/sched.h`: cgroup, uts, ipc, user, pid and network namespaces, mounts.
const NAMESPACE_FLAGS: [u64; 7] =
    [0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0002_0000];

/// Personalities (`linux/personality.h`): Linux's own; 32-bit's `uname -m`; both with `UNAME26`; and the question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_VSOCK: u64 = libc::AF_VSOCK as u64;
const AF_NETLINK: u64 = libc::AF_NETLINK as u64;
const NETLINK_AUDIT: u64 = libc::NETLINK_AUDIT as u64;

/// The profile of a container whose bounding set is `capabilities`.
///
/// # Errors
/// None today; the OCI builders can fail by type.
pub fn default_seccomp(capabilities: &HashSet<Capability>) -> Result<LinuxSeccomp> {
    use LinuxSeccompAction::{ScmpActAllow as Allow, ScmpActErrno as Errno};
    let has = |capability| capabilities.contains(&capability);
    // A call may be open to several capabilities.
    let mut opened: Vec<&str> = Vec::new();
    for (_, names) in BY_CAPABILITY.iter().filter(|(capability, _)| has(*capability)) {
        opened.extend(names.split_ascii_whitespace());
    }
    let mut closed: Vec<&str> = Vec::new();
    for name in BY_CAPABILITY.iter().flat_map(|(_, names)| names.split_ascii_whitespace()) {
        if !opened.contains(&name) && !closed.contains(&name) && name != ABSENT {
            closed.push(name);
        }
    }
    opened.sort_unstable();
    opened.dedup();
    let words = |lines: &[&str], further: Vec<&str>| -> Vec<String> {
        let words = lines.iter().flat_map(|line| line.split_ascii_whitespace());
        words.chain(further).map(str::to_owned).collect()
    };
    let (allowed, denied) = (words(ALLOWED, opened), words(&[DENIED], closed));
    let mut rules =
        vec![rule(allowed, Allow, None, &[]), rule(denied, Errno, Some(libc::EPERM), &[])];
    let mut one = |name: &str, action, errno, arguments: &[LinuxSeccompArg]| {
        rules.push(rule(vec![name.to_owned()], action, errno, arguments));
    };
    if has(Capability::SysAdmin) {
        one("clone", Allow, None, &[]);
    } else {
        one(ABSENT, Errno, Some(libc::ENOSYS), &[]);
        for flag in NAMESPACE_FLAGS {
            one("clone", Errno, Some(libc::EPERM), &[masked(0, flag, flag)?]);
        }
        let all = NAMESPACE_FLAGS.iter().fold(0, |all, flag| all | flag);
        one("clone", Allow, None, &[masked(0, all, 0)?]);
    }
    for personality in PERSONALITIES {
        one("personality", Allow, None, &[equal(0, personality)?]);
    }
    // The hypervisor, where this host is a guest, and guests, where it has some: vsock is in no namespace.
    one("socket", Errno, Some(libc::EPERM), &[equal(0, AF_VSOCK)?]);
    if has(Capability::AuditWrite) {
        one("socket", Allow, None, &[unequal(0, AF_VSOCK)?]);
    } else {
        // A library that asks for the audit system is to take it for absent, not for broken.
        one(
            "socket",
            Errno,
            Some(libc::EINVAL),
            &[equal(0, AF_NETLINK)?, equal(2, NETLINK_AUDIT)?],
        );
        one("socket", Allow, None, &[unequal(0, AF_VSOCK)?, unequal(2, NETLINK_AUDIT)?]);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Errno)
        .set_default_errno_ret(Some(libc::ENOSYS as u32))
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX32, Arch::ScmpArchX86]))
        .set_syscalls(Some(rules));
    Ok(profile)
}

fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<i32>,
    arguments: &[LinuxSeccompArg],
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names)
        .set_action(action)
        .set_errno_ret(errno.map(|errno| errno as u32))
        .set_args((!arguments.is_empty()).then(|| arguments.to_vec()));
    rule
}

/// A condition on one argument.
type Condition = Result<LinuxSeccompArg>;

fn argument(index: usize, op: LinuxSeccompOperator, value: u64, second: u64) -> Condition {
    let argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    argument.value_two(second).build().map_err(builder)
}

fn equal(index: usize, value: u64) -> Condition {
    argument(index, LinuxSeccompOperator::ScmpCmpEq, value, 0)
}

fn unequal(index: usize, value: u64) -> Condition {
    argument(index, LinuxSeccompOperator::ScmpCmpNe, value, 0)
}

/// The argument's bits of `mask` are `value`.
fn masked(index: usize, mask: u64, value: u64) -> Condition {
    argument(index, LinuxSeccompOperator::ScmpCmpMaskedEq, mask, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Action and errno of each rule for `name`, with its number of conditions.
    fn rules(profile: &LinuxSeccomp, name: &str) -> Vec<(LinuxSeccompAction, Option<u32>, usize)> {
        let named = |rule: &&LinuxSyscall| rule.names().iter().any(|other| other == name);
        let rules = profile.syscalls().iter().flatten().filter(named);
        rules
            .map(|rule| (rule.action(), rule.errno_ret(), rule.args().as_ref().map_or(0, Vec::len)))
            .collect()
    }

    #[test]
    fn a_capability_opens_the_calls_that_it_is_for() {
        use LinuxSeccompAction::{ScmpActAllow as Allow, ScmpActErrno as Errno};
        let of = |capabilities: &[Capability]| {
            default_seccomp(&capabilities.iter().copied().collect()).unwrap()
        };
        let (none, admin) = (of(&[]), of(&[Capability::SysAdmin]));
        for name in ["mount", "unshare", "setns", "bpf", "perf_event_open", "pivot_root"] {
            assert_eq!(rules(&none, name), [(Errno, Some(1), 0)], "{name}");
            assert_eq!(rules(&admin, name), [(Allow, None, 0)], "{name}");
        }
        assert_eq!(rules(&of(&[Capability::Bpf]), "bpf"), [(Allow, None, 0)]);
        assert_eq!(rules(&none, "clone3"), [(Errno, Some(38), 0)]);
        assert_eq!(rules(&admin, "clone3"), [(Allow, None, 0)]);
        assert_eq!(rules(&none, "clone").len(), NAMESPACE_FLAGS.len() + 1);
        assert_eq!(rules(&admin, "clone"), [(Allow, None, 0)]);
        for name in ["keyctl", "add_key", "request_key", "io_uring_setup", "kexec_load"] {
            assert_eq!(rules(&admin, name), [(Errno, Some(1), 0)], "{name}");
        }
    }

    #[test]
    fn no_call_is_decided_twice() {
        for capabilities in
            [HashSet::new(), BY_CAPABILITY.iter().map(|(capability, _)| *capability).collect()]
        {
            let profile = default_seccomp(&capabilities).unwrap();
            let mut seen = HashMap::new();
            for rule in profile.syscalls().iter().flatten().filter(|rule| rule.args().is_none()) {
                for name in rule.names() {
                    assert_eq!(seen.insert(name.clone(), rule.action()), None, "{name}");
                }
            }
            assert!(seen.len() > 380, "{}", seen.len());
        }
    }
}
