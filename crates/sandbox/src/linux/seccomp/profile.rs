//! What Docker's default profile allows, as data.
//!
//! Facts of `seccomp/default.json` of github.com/moby/profiles at cd3bed8 (June 2026), written in
//! our own form; `tests/seccomp_differential.rs` compares the two when it is given that file.
//! To follow a newer profile change the lists here and run that test.
//!
//! A name that an architecture does not have is no mistake: it is skipped there.

use super::super::capabilities::Capability;
use super::KernelVersion;

/// When a group of names applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// In every container.
    Always,
    /// In containers that were granted this capability.
    Granted(Capability),
    /// In containers that were not granted this capability.
    NotGranted(Capability),
    /// On kernels of at least this version.
    Kernel(KernelVersion),
    /// On this family of machines: for the native and the 32-bit calls alike, as libseccomp does.
    On(Family),
}

/// A machine and its 32-bit mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// x86-64 and i386.
    X86,
    /// aarch64 and arm.
    Arm,
}

/// What is decided for a call that a group names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Fails with this error number.
    Errno(u16),
    /// Depends on an argument.
    Test(ArgumentTest),
    /// The kernel's number of an answer, of a profile that was given.
    Answer(u32),
    /// The rules with this number, of a profile that was given.
    Rules(usize),
    /// Allowed. The greatest verdict: a call named twice gets the more permissive one.
    Allow,
}

/// Allows a call by one of its arguments, refuses it with `EPERM` otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ArgumentTest {
    /// Allowed unless the argument's lower 32 bits are one of these.
    ///
    /// For an argument that the kernel takes as an `int`. Docker's rules compare all 64 bits, so
    /// that `socket(0x1_0000_0028, ..)` passes as a large number and the kernel, which cuts it
    /// off, opens a vsock. Here it is refused.
    IntNotIn {
        /// Index of the argument from 0.
        argument: u8,
        /// The refused values.
        refused: &'static [u32],
    },
    /// Allowed if the argument, as 64 bits, is one of these.
    In {
        /// Index of the argument from 0.
        argument: u8,
        /// The allowed values.
        allowed: &'static [u32],
    },
    /// Allowed if none of these bits of the argument is set.
    Clear {
        /// Index of the argument from 0.
        argument: u8,
        /// The refused bits.
        mask: u32,
    },
}

/// Names that share a condition and a verdict, separated by blanks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) when: When,
    pub(crate) verdict: Verdict,
    pub(crate) names: &'static str,
}

/// What a call gets that no applicable group names, if the profile's authors can have known it.
pub(crate) const DEFAULT_ERRNO: u16 = libc::EPERM as u16;

/// `socket(2)` families that reach past the container's network: `AF_ALG` (the kernel's
/// cryptography) and `AF_VSOCK` (the hypervisor).
const REFUSED_FAMILIES: &[u32] = &[libc::AF_ALG as u32, libc::AF_VSOCK as u32];

/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the query.
const PERSONALITIES: &[u32] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `clone(2)` flags that make namespaces: mount, cgroup, UTS, IPC, user, PID, network.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;

/// The profile. No order is meant.
pub(crate) const PROFILE: &[Group] = &[
    Group {
        when: When::Always,
        verdict: Verdict::Allow,
        names: "_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget \
               capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres \
               clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
               clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 \
               dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
               epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group \
               faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod \
               fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr \
               flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs \
               fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
               futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd \
               getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups \
               getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority \
               getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid \
               getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat \
               inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy \
               io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl \
               ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset \
               landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount \
               listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 \
               madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir \
               mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr \
               mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
               mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync \
               munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat \
               openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free \
               pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
               process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead \
               readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
               remap_file_pages removexattr removexattrat rename renameat renameat2 \
               restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask \
               rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
               rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity \
               sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
               sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
               sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
               semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list \
               set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid \
               setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 \
               setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid \
               setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown \
               sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice \
               stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range \
               syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun \
               timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
               timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill \
               truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime \
               utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev",
    },
    // Before 4.8 a tracer could change a call after the filter had seen it.
    Group {
        when: When::Kernel(KernelVersion { major: 4, minor: 8 }),
        verdict: Verdict::Allow,
        names: "process_vm_readv process_vm_writev ptrace",
    },
    Group {
        when: When::Always,
        verdict: Verdict::Test(ArgumentTest::IntNotIn { argument: 0, refused: REFUSED_FAMILIES }),
        names: "socket",
    },
    Group {
        when: When::Always,
        verdict: Verdict::Test(ArgumentTest::In { argument: 0, allowed: PERSONALITIES }),
        names: "personality",
    },
    Group {
        when: When::NotGranted(Capability::SYS_ADMIN),
        verdict: Verdict::Test(ArgumentTest::Clear { argument: 0, mask: CLONE_NAMESPACES }),
        names: "clone",
    },
    // Its flags are behind a pointer, which a filter cannot follow. ENOSYS, not EPERM: the C
    // libraries then fall back to clone.
    Group {
        when: When::NotGranted(Capability::SYS_ADMIN),
        verdict: Verdict::Errno(libc::ENOSYS as u16),
        names: "clone3",
    },
    Group { when: When::On(Family::X86), verdict: Verdict::Allow, names: "arch_prctl modify_ldt" },
    Group {
        when: When::On(Family::Arm),
        verdict: Verdict::Allow,
        names: "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls \
               sync_file_range2",
    },
    Group {
        when: When::Granted(Capability::DAC_READ_SEARCH),
        verdict: Verdict::Allow,
        names: "open_by_handle_at",
    },
    Group {
        when: When::Granted(Capability::SYS_ADMIN),
        verdict: Verdict::Allow,
        names: "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
               lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr \
               move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
               sethostname setns syslog umount umount2 unshare",
    },
    Group { when: When::Granted(Capability::SYS_BOOT), verdict: Verdict::Allow, names: "reboot" },
    Group { when: When::Granted(Capability::SYS_CHROOT), verdict: Verdict::Allow, names: "chroot" },
    Group {
        when: When::Granted(Capability::SYS_MODULE),
        verdict: Verdict::Allow,
        names: "delete_module finit_module init_module",
    },
    Group { when: When::Granted(Capability::SYS_PACCT), verdict: Verdict::Allow, names: "acct" },
    Group {
        when: When::Granted(Capability::SYS_PTRACE),
        verdict: Verdict::Allow,
        names: "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    },
    Group {
        when: When::Granted(Capability::SYS_RAWIO),
        verdict: Verdict::Allow,
        names: "ioperm iopl",
    },
    Group {
        when: When::Granted(Capability::SYS_TIME),
        verdict: Verdict::Allow,
        names: "clock_settime clock_settime64 settimeofday stime",
    },
    Group {
        when: When::Granted(Capability::SYS_TTY_CONFIG),
        verdict: Verdict::Allow,
        names: "vhangup",
    },
    Group {
        when: When::Granted(Capability::SYS_NICE),
        verdict: Verdict::Allow,
        names: "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    },
    Group { when: When::Granted(Capability::SYSLOG), verdict: Verdict::Allow, names: "syslog" },
    Group { when: When::Granted(Capability::BPF), verdict: Verdict::Allow, names: "bpf" },
    Group {
        when: When::Granted(Capability::PERFMON),
        verdict: Verdict::Allow,
        names: "perf_event_open",
    },
];
