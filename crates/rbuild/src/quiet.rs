//! A pool for work that is done ahead of time, and that stands back behind the steps of the build
//! until these are done.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;

use crate::BuildError;

/// Niceness beside steps: a busy thread of the usual niceness gets ten times as much of a processor.
const QUIET: i32 = 10;
/// The usual niceness.
const USUAL: i32 = 0;

/// A pool whose threads have a niceness. On Linux each thread has its own.
#[derive(Debug)]
pub(crate) struct QuietPool {
    pool: rayon::ThreadPool,
    threads: Arc<Mutex<Threads>>,
}

#[derive(Debug)]
struct Threads {
    niceness: i32,
    ids: Vec<Pid>,
}

impl QuietPool {
    pub(crate) fn new() -> Result<Self, BuildError> {
        let threads = Arc::new(Mutex::new(Threads { niceness: QUIET, ids: Vec::new() }));
        let started = threads.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|number| format!("rbuild-quiet-{number}"))
            .start_handler(move |_| {
                let mut threads = started.lock().unwrap_or_else(PoisonError::into_inner);
                let id = rustix::thread::gettid();
                threads.ids.push(id);
                set(id, threads.niceness);
            });
        let pool = pool.build().map_err(|error| BuildError::Io {
            what: "start a thread pool".to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(Self { pool, threads })
    }

    pub(crate) fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// Steps may run now.
    pub(crate) fn stand_back(&self) {
        self.set(QUIET);
    }

    /// All wait for this pool now.
    pub(crate) fn hurry(&self) {
        self.set(USUAL);
    }

    fn set(&self, niceness: i32) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.niceness = niceness;
        threads.ids.iter().for_each(|id| set(*id, niceness));
    }
}

fn set(thread: Pid, niceness: i32) {
    // Where that is not allowed, the thread works with the niceness that it has.
    let _ = rustix::process::setpriority_process(Some(thread), niceness);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_stand_back_until_there_is_a_hurry() {
        let pool = QuietPool::new().unwrap();
        let niceness =
            || pool.pool().broadcast(|_| rustix::process::getpriority_process(None).unwrap());
        assert!(niceness().iter().all(|niceness| *niceness >= QUIET));
        // Only root may take niceness away.
        if rustix::process::geteuid().is_root() {
            pool.hurry();
            assert!(niceness().iter().all(|niceness| *niceness == USUAL));
            pool.stand_back();
            assert!(niceness().iter().all(|niceness| *niceness == QUIET));
        }
    }
}
