//! What a process writes, read as it comes.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rbuild_types::Stream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One read; a pipe holds 64 KiB by default.
const CHUNK: usize = 64 * 1024;

/// As much as a pipe can hold (`/proc/sys/fs/pipe-max-size`, unless root grants more).
const LARGEST_PIPE: usize = 1 << 20;

/// The reading ends of a process' output and error; each goes when it ends.
pub(crate) struct Output {
    streams: Vec<(Stream, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Output {
    pub(crate) fn new(stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Self {
        let stdout = stdout.map(|fd| (Stream::Stdout, fd));
        let stderr = stderr.map(|fd| (Stream::Stderr, fd));
        Self { streams: stdout.into_iter().chain(stderr).collect(), buffer: vec![0; CHUNK] }
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().map(|(_, fd)| fd.as_fd())
    }

    /// Takes at most one piece from each stream that has something now.
    pub(crate) fn read_ready(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> io::Result<()> {
        let mut still_open = Vec::with_capacity(self.streams.len());
        for (stream, fd) in self.streams.drain(..) {
            let ready = {
                let mut fds = [PollFd::new(&fd, PollFlags::IN)];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
            };
            if !ready {
                still_open.push((stream, fd));
                continue;
            }
            match rustix::io::read(&fd, &mut self.buffer) {
                // A terminal ends like this.
                Ok(0) | Err(rustix::io::Errno::IO) => {}
                Ok(count) => {
                    output(stream, self.buffer.get(..count).unwrap_or_default());
                    still_open.push((stream, fd));
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {
                    still_open.push((stream, fd));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        self.streams = still_open;
        Ok(())
    }

    /// Takes what was written before the process ended. Whoever it left behind may have the other
    /// ends, and write for ever.
    pub(crate) fn read_rest(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> io::Result<()> {
        let mut taken = 0;
        loop {
            let before = taken;
            self.read_ready(&mut |stream, bytes| {
                taken += bytes.len();
                output(stream, bytes);
            })?;
            if taken == before || taken >= 2 * LARGEST_PIPE {
                return Ok(());
            }
        }
    }

    /// Takes everything until both end.
    pub(crate) fn read_to_end(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> io::Result<()> {
        while !self.streams.is_empty() {
            let mut fds: Vec<_> =
                self.streams.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            drop(fds);
            self.read_ready(output)?;
        }
        Ok(())
    }
}
