//! The one system call that rustix has no function for.

use std::io;

use super::SockFilter;

// The kernel reads our instructions as its own structure.
const _: () = assert!(size_of::<SockFilter>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<SockFilter>() == align_of::<libc::sock_filter>());

/// `seccomp(SECCOMP_SET_MODE_FILTER)` for the calling thread.
pub(super) fn set_filter(filter: &[SockFilter]) -> io::Result<()> {
    // Speculative store bypass stays as the host has it, which is what runc does by default.
    match load(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, filter) {
        // Kernels before 4.17 do not know the flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => load(0, filter),
        other => other,
    }
}

fn load(flags: libc::c_ulong, filter: &[SockFilter]) -> io::Result<()> {
    let len =
        u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: `program` and the `len` instructions that it points to live across the call, and
    // the kernel only reads them. `SockFilter` is `repr(C)` with the fields of `sock_filter`, in
    // that order, and has its size and alignment (asserted above).
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raw calls for tests of a loaded filter.
#[cfg(test)]
pub(super) mod probe {
    /// The error number that a call with these two arguments (and four zeros) gives, 0 for none.
    pub(crate) fn call(number: libc::c_long, arguments: [usize; 2]) -> i32 {
        let [first, second] = arguments;
        // SAFETY: the tests pass null pointers and small integers to calls that check them, or
        // that the filter is to refuse; none of them can touch this program's memory.
        let result =
            unsafe { libc::syscall(number, first, second, 0usize, 0usize, 0usize, 0usize) };
        if result == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
    }
}
