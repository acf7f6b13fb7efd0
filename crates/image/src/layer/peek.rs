//! Files of a directory, opened and read ahead of the thread that writes them.
//!
//! To open and read fifty thousand small files takes longer than to hash them, and far longer where
//! they must come from the disk. So a few threads do it ahead, [`BATCH`] files of one directory at
//! a time. At most [`UNDER_WAY`] batches exist, in all directories together, which bounds memory and
//! open files. Whoever finds none under way reads the file himself: nobody waits for room.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use rbuild_rooted::{Metadata, Root, RootedError};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Files that are handed on together.
const BATCH: usize = 16;
/// Batches that are read, or of which files wait to be taken.
const UNDER_WAY: usize = 8;
/// More than processors: with cold caches they wait for the disk.
const THREADS: usize = 4;
/// Larger files are opened only.
const SMALL: u64 = 64 << 10;
/// Fewer files in a directory are not worth another thread.
const FEW: usize = 4;

/// The one attribute that a layer keeps.
pub(crate) const CAPABILITY: &str = "security.capability";
/// Bytes of the largest form of it (`struct vfs_ns_cap_data`, revision 3), with room.
const CAPABILITY_MAX: usize = 64;

/// A file that was opened.
pub(super) struct Found {
    pub(super) metadata: Metadata,
    /// Value of [`CAPABILITY`].
    pub(super) capability: Option<Vec<u8>>,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// All of it, as many bytes as the metadata says.
    Bytes(Vec<u8>),
    /// At its start.
    Open(File),
}

/// Why a file could not be read.
pub(super) enum Failure {
    Open(RootedError),
    Read(std::io::Error),
    /// It is no file any more, or a shorter one.
    Changed,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Read(errno.into())
    }
}

type Batch = VecDeque<Result<Found, Failure>>;

struct Job {
    dir: Root,
    names: Vec<OsString>,
    done: Sender<Batch>,
}

/// The threads. They end when this is dropped.
pub(super) struct Peekers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// Started with the first directory of many files.
    jobs: Option<Sender<Job>>,
    /// Batches that may still be begun.
    room: usize,
}

/// The regular files of one directory, in order.
#[derive(Default)]
pub(super) struct Files {
    waiting: VecDeque<OsString>,
    under_way: VecDeque<Receiver<Batch>>,
    ready: Batch,
}

impl Files {
    pub(super) fn new(names: impl Iterator<Item = OsString>) -> Self {
        Self { waiting: names.collect(), ..Self::default() }
    }
}

impl<'scope, 'env> Peekers<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Self { scope, jobs: None, room: UNDER_WAY }
    }

    /// The next of the files in `dir`.
    pub(super) fn next(&mut self, dir: &Root, files: &mut Files) -> Result<Found, Failure> {
        if files.ready.is_empty() {
            self.begin(dir, files)?;
            if let Some(batch) = files.under_way.pop_front() {
                let ended = |_| Failure::Read(std::io::Error::other("a reading thread ended"));
                files.ready = batch.recv().map_err(ended)?;
            }
        }
        match (files.ready.pop_front(), files.waiting.is_empty()) {
            (Some(found), _) => {
                // Until then it holds files, while the walk may be far below.
                self.room += usize::from(files.ready.is_empty());
                found
            }
            (None, false) => peek(dir, &files.waiting.pop_front().unwrap_or_default()),
            (None, true) => Err(Failure::Changed),
        }
    }

    /// Begins as many batches as there is room for.
    fn begin(&mut self, dir: &Root, files: &mut Files) -> Result<(), Failure> {
        while self.room > 0 && files.waiting.len() >= FEW {
            let dir = dir.try_clone().map_err(Failure::Open)?;
            let names = files.waiting.drain(..files.waiting.len().min(BATCH)).collect();
            let (done, batch) = channel();
            let scope = self.scope;
            let jobs = self.jobs.get_or_insert_with(|| start(scope));
            // A thread that is gone has panicked, which the scope passes on.
            let _ = jobs.send(Job { dir, names, done });
            files.under_way.push_back(batch);
            self.room -= 1;
        }
        Ok(())
    }
}

fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Sender<Job> {
    let (sender, jobs) = channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..THREADS {
        let jobs = jobs.clone();
        scope.spawn(move || {
            loop {
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { dir, names, done }) = job else { break };
                // Nobody takes it when packing has failed.
                let _ = done.send(names.iter().map(|name| peek(&dir, name)).collect());
            }
        });
    }
    sender
}

fn peek(dir: &Root, name: &OsStr) -> Result<Found, Failure> {
    let mut file = open(dir, name).map_err(Failure::Open)?;
    let metadata = Metadata::from_stat(&rustix::fs::fstat(&file)?);
    if !metadata.is_file() {
        return Err(Failure::Changed);
    }
    let capability = capability(&file)?;
    let content = match usize::try_from(metadata.size) {
        Ok(size) if metadata.size <= SMALL => {
            let mut bytes = vec![0; size];
            match file.read_exact(&mut bytes) {
                Ok(()) => Content::Bytes(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(Failure::Changed);
                }
                Err(error) => return Err(Failure::Read(error)),
            }
        }
        _ => Content::Open(file),
    };
    Ok(Found { metadata, capability, content })
}

fn capability(file: &File) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = [0; CAPABILITY_MAX];
    match rustix::fs::fgetxattr(file, CAPABILITY, &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens a file that a listing called regular, without waiting should it be a pipe by now.
fn open(dir: &Root, name: &OsStr) -> Result<File, RootedError> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // A time of reading for each of fifty thousand files is much to write. Only their owner may
    // read without.
    let opened = match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    };
    match opened {
        Ok(fd) => Ok(File::from(fd)),
        Err(errno) => {
            let path = PathBuf::from(name);
            Err(RootedError::Io { action: "open", path, source: errno.into() })
        }
    }
}
