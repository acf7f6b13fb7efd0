//! Signal handlers. A handler may only store to atomics and call `write` or `_exit`
//! (signal-safety(7)); it is a plain `fn`, so it cannot capture anything that would need more.

use std::io;

/// Runs `handler` with the number of each of these signals that arrives.
pub fn handle(signals: &[i32], handler: extern "C" fn(i32)) -> io::Result<()> {
    for &signal in signals {
        // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask, SIG_DFL.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        // A call that was interrupted goes on: cancellation travels by its own descriptor.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: both pointers are valid for the call or null, and the handler has the signature
        // that goes without SA_SIGINFO.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends the process at once, from within a handler too.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` is async-signal-safe and does not return.
    unsafe { libc::_exit(code) }
}

/// Writes one byte, from within a handler too. A full pipe or a bad descriptor loses it.
pub fn write_byte(descriptor: i32, byte: u8) {
    // SAFETY: `write` is async-signal-safe, and the pointer is to one byte that lives for the call.
    // `errno` is put back, because the interrupted code may be about to read it.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(descriptor, (&raw const byte).cast(), 1);
        *errno = before;
    }
}
