//! Docker's default seccomp profile, or one that a user gives (`document.rs`), compiled to a classic
//! BPF program and loaded.
//!
//! The default profile is data (`profile.rs`), the numbers of its names come from the `syscalls` crate
//! (`abi.rs`), and `compile.rs` turns both into a program: one binary search over ranges of call
//! numbers for each calling convention of the machine. With Docker's capabilities that makes 224
//! instructions on x86-64, where one test per name makes 1,600 and costs half a millisecond more.
//!
//! # What a program gets
//!
//! * Calls of the profile are allowed, some depending on an argument or on what was granted.
//! * Any other call that is not newer than the newest one that the profile knows fails with
//!   `EPERM`.
//! * A newer one fails with `ENOSYS`, as runc makes it (`libcontainer/seccomp/patchbpf`), because
//!   C libraries fall back to older calls on `ENOSYS` only.
//! * x32 calls fail with `EPERM`. Docker's profile allows that calling convention, but nothing
//!   uses it and it doubles what can be attacked.
//! * A calling convention that the machine should not have kills the thread, as in libseccomp.
//!
//! Since it is security-critical code of our own, `tests/seccomp_differential.rs` holds it against
//! libseccomp, call by call.

pub(crate) mod abi;
pub(crate) mod compile;
mod document;
pub(crate) mod profile;
mod sys;

use std::io;

use serde::{Deserialize, Serialize};

use super::capabilities::CapabilitySet;

pub use abi::Machine;

/// One instruction of a classic BPF program: `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Constant operand.
    pub k: u32,
}

/// A kernel release as far as the profile looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The 6 of 6.18.44.
    pub major: u32,
    /// The 18 of 6.18.44.
    pub minor: u32,
}

impl KernelVersion {
    /// The running kernel's. A release that cannot be read counts as 0.0, which allows least.
    pub fn running() -> Self {
        Self::parse(&rustix::system::uname().release().to_string_lossy())
            .unwrap_or(Self { major: 0, minor: 0 })
    }

    /// Reads the front of a release such as `6.18.44-cloud` or `3.12-1-amd64`.
    fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..end].parse().ok()? })
    }
}

/// Docker's default filter for this machine and kernel, for a container that was granted these
/// capabilities (its bounding set).
///
/// Some calls are allowed only with a capability: `mount` with `CAP_SYS_ADMIN`, for example.
/// Takes about 0.1 ms (0.16 ms the first time), and loading the result 0.07 ms (release build on
/// a 2-core x86-64 machine). It allocates.
pub fn docker_filter(granted: CapabilitySet) -> Vec<SockFilter> {
    filter_for(Machine::NATIVE, granted, KernelVersion::running())
}

/// [`docker_filter`] for another machine or kernel.
pub fn filter_for(
    machine: Machine,
    granted: CapabilitySet,
    kernel: KernelVersion,
) -> Vec<SockFilter> {
    compile::compile(machine, granted, kernel)
}

/// The filter of another profile, a document as Docker takes it, for this machine and kernel and a
/// container that was granted these capabilities.
///
/// # Errors
/// What is wrong with the document, or what of it cannot be kept.
pub fn profile_filter(text: &str, granted: CapabilitySet) -> Result<Vec<SockFilter>, String> {
    profile_filter_for(text, Machine::NATIVE, granted, KernelVersion::running())
}

/// [`profile_filter`] for another machine or kernel.
///
/// # Errors
/// As there.
pub fn profile_filter_for(
    text: &str,
    machine: Machine,
    granted: CapabilitySet,
    kernel: KernelVersion,
) -> Result<Vec<SockFilter>, String> {
    compile::compile_given(&document::Given::read(text, machine, granted, kernel)?)
}

/// Loads a filter into the calling thread, which needs `CAP_SYS_ADMIN` or `no_new_privs`.
///
/// It holds for the thread, its future children and what they execute, for good. It leaves
/// `no_new_privs` alone, so that `sudo` works in the container; hence it has to be loaded before
/// capabilities are dropped (see `capabilities.rs`, "Order"). Neither allocates nor locks.
///
/// # Errors
/// `EACCES` without the privilege, `EINVAL` for a program that the kernel does not accept or
/// without seccomp in the kernel.
pub fn install(filter: &[SockFilter]) -> io::Result<()> {
    sys::set_filter(filter)
}

/// Sets `no_new_privs` for the calling thread and loads a filter, which then needs no privilege.
///
/// # Errors
/// As [`install`], less `EACCES`.
pub fn install_no_new_privs(filter: &[SockFilter]) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    install(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases() {
        let version = |major, minor| Some(KernelVersion { major, minor });
        assert_eq!(KernelVersion::parse("6.18.44-fc"), version(6, 18));
        assert_eq!(KernelVersion::parse("3.12-1-amd64"), version(3, 12));
        assert_eq!(KernelVersion::parse("4.8"), version(4, 8));
        for text in ["", "6", "six.1", "6.", "6.x", "99999999999.1"] {
            assert_eq!(KernelVersion::parse(text), None, "{text}");
        }
        assert!(KernelVersion::running() > KernelVersion { major: 3, minor: 16 });
    }

    /// A filter belongs to a thread, so a thread can load it and be thrown away.
    fn in_filtered_thread(granted: CapabilitySet, check: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            install_no_new_privs(&docker_filter(granted)).unwrap();
            check();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_kernel_accepts_and_obeys_the_filter() {
        in_filtered_thread(CapabilitySet::docker_default(), || {
            use sys::probe::call;
            assert_eq!(call(libc::SYS_getppid, [0; 2]), 0);
            assert_eq!(call(libc::SYS_clone3, [0; 2]), libc::ENOSYS);
            assert_eq!(call(libc::SYS_bpf, [0; 2]), libc::EPERM);
            assert_eq!(call(libc::SYS_keyctl, [0; 2]), libc::EPERM);
            assert_eq!(call(libc::SYS_io_uring_setup, [0; 2]), libc::EPERM);
            assert_eq!(call(libc::SYS_userfaultfd, [0; 2]), libc::EPERM);
            assert_eq!(call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0]), libc::EPERM);
            assert_eq!(call(libc::SYS_socket, [libc::AF_ALG as usize, 5]), libc::EPERM);
            assert_eq!(call(libc::SYS_socket, [libc::AF_VSOCK as usize, 1]), libc::EPERM);
            // The kernel cuts the upper half off, and so does the filter.
            let wide = libc::AF_VSOCK as usize | 1 << 32;
            assert_eq!(call(libc::SYS_socket, [wide, 1]), libc::EPERM);
            assert_eq!(call(libc::SYS_socket, [libc::AF_UNIX as usize, 99]), libc::EINVAL);
            assert_eq!(call(libc::SYS_personality, [0xffff_ffff, 0]), 0);
            assert_eq!(call(libc::SYS_personality, [0x4, 0]), libc::EPERM);
            // A call of the future.
            assert_eq!(call(4000, [0; 2]), libc::ENOSYS);
        });
    }

    /// An i386 program that exits with the error number that `clone3(0, 0)` gives it.
    #[cfg(target_arch = "x86_64")]
    fn i386_program() -> Vec<u8> {
        const BASE: u32 = 0x0804_8000;
        const HEADERS: u32 = 52 + 32;
        let code = [
            &[0xb8, 0xb3, 0x01, 0x00, 0x00][..],         // mov eax, 435
            &[0x31, 0xdb, 0x31, 0xc9, 0xcd, 0x80],       // xor ebx, ebx; xor ecx, ecx; int 0x80
            &[0xf7, 0xd8, 0x89, 0xc3],                   // neg eax; mov ebx, eax
            &[0xb8, 0x01, 0x00, 0x00, 0x00, 0xcd, 0x80], // mov eax, 1; int 0x80
        ]
        .concat();
        let size = HEADERS + code.len() as u32;
        let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
        for word in [1, BASE + HEADERS, 52, 0, 0, 52 | 32 << 16, 1, 0] {
            elf.extend(u32::to_le_bytes(word));
        }
        for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
            elf.extend(u32::to_le_bytes(word));
        }
        elf.extend(code);
        elf
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn i386_programs_run_under_the_filter_and_x32_calls_do_not() {
        in_filtered_thread(CapabilitySet::docker_default(), || {
            let x32_getppid = abi::X32_BIT.into();
            assert_eq!(sys::probe::call(x32_getppid, [0; 2]), libc::EPERM);

            use std::os::unix::fs::PermissionsExt;
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("i386");
            fs_err::write(&path, i386_program()).unwrap();
            fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            for _ in 0..100 {
                match std::process::Command::new(&path).status() {
                    Ok(status) => return assert_eq!(status.code(), Some(libc::ENOSYS)),
                    // Another test forked while the file was open for writing.
                    Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                        return eprintln!("skipped: this kernel runs no i386 programs");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("the program stayed busy");
        });
    }

    #[test]
    fn a_granted_capability_opens_its_calls() {
        use sys::probe::call;
        // EINVAL, unless these tests themselves run under Docker's filter.
        let unfiltered = call(libc::SYS_clone3, [0; 2]);
        in_filtered_thread(CapabilitySet::all(), move || {
            assert_eq!(call(libc::SYS_clone3, [0; 2]), unfiltered);
            assert_eq!(call(libc::SYS_keyctl, [0; 2]), libc::EPERM);
        });
    }
}
