//! The handle of a store: opening, shared state, leases and locks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rbuild_types::{CancelToken, Digest};

use crate::error::{At as _, CacheError};
use crate::index::{Durability, Index};
use crate::lease::{Lease, LeaseFile, Object};
use crate::limits::SpaceLimits;
use crate::lock::{GcLock, StepLock};
use crate::scratch::{Owner, Scratch};
use crate::{Blobs, Builds, Records, Snapshots, StatCache, Tags, Volumes};
use crate::{file, recovery, sizes};

/// An open store. Cheap to clone; clones share one state.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// The kernel's id of the time since power-on.
    boot: String,
    read_only: bool,
    index: Index,
    owner: Mutex<Option<Owner>>,
    leases: Mutex<Vec<Weak<LeaseFile>>>,
    used: Mutex<Vec<Digest>>,
    /// Whether blobs were published since the last sync.
    new_blobs: AtomicBool,
    limits: OnceLock<SpaceLimits>,
    /// Why the last try to keep them failed.
    room_failure: Mutex<Option<CacheError>>,
}

/// Directories of a store. The root (mode 0700) keeps others out: snapshots hold setuid
/// programs and volumes hold data.
const DIRECTORIES: [&str; 8] =
    ["blobs", "blobs/sha256", "snapshots", "volumes", "containers", "logs", "tmp", "locks"];

const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

impl Store {
    /// Opens the store at `root`, making it when it is not there, and sweeps what dead processes
    /// left. A store that may not be written is opened for reading; its writes then fail with
    /// [`CacheError::ReadOnly`].
    ///
    /// # Errors
    ///
    /// [`CacheError::NewerFormat`] for a store of a newer version, which is left as it is.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, CacheError> {
        Self::open_in_boot(root.as_ref(), boot_id())
    }

    /// Opens a store that is there, to look at it only.
    pub fn open_read_only(root: impl AsRef<Path>) -> Result<Self, CacheError> {
        Self::open_as(root.as_ref(), boot_id(), true)
    }

    /// [`Store::open`] with the boot's id given, so that tests can cut the power.
    pub(crate) fn open_in_boot(root: &Path, boot: String) -> Result<Self, CacheError> {
        let read_only = match make_layout(root) {
            Ok(()) => false,
            Err(error) if is_refusal(&error) && file::exists(&root.join("index.db")) => true,
            Err(error) => return Err(error),
        };
        Self::open_as(root, boot, read_only)
    }

    /// Opens a store whose directories are there.
    pub(crate) fn open_as(root: &Path, boot: String, read_only: bool) -> Result<Self, CacheError> {
        let index = Index::open(root, read_only, recovery::refill)?;
        let inner = Inner {
            root: root.to_owned(),
            boot,
            read_only,
            index,
            owner: Mutex::default(),
            leases: Mutex::default(),
            used: Mutex::default(),
            new_blobs: AtomicBool::new(false),
            limits: OnceLock::new(),
            room_failure: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        if !read_only {
            recovery::sweep(&store, Some(recovery::SWEEP_TIME))?;
            recovery::after_boot(&store)?;
        }
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Bytes by digest.
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::new(self)
    }

    /// Step records by key.
    pub fn records(&self) -> Records<'_> {
        Records::new(self)
    }

    /// Past builds.
    pub fn builds(&self) -> Builds<'_> {
        Builds::new(self)
    }

    /// Trees.
    pub fn snapshots(&self) -> Snapshots<'_> {
        Snapshots::new(self)
    }

    /// Volumes and cache mounts.
    pub fn volumes(&self) -> Volumes<'_> {
        Volumes::new(self)
    }

    /// Limits the store for this handle and its clones, once: from now on whatever they make is
    /// preceded and followed by a prune of what is too much. What leases protect stays, so a build
    /// may exceed the limits by what it uses itself. The first limits count.
    pub fn limit(&self, limits: SpaceLimits) {
        if !limits.is_none() {
            let _ = self.inner.limits.set(limits);
        }
    }

    /// Why the store could not be kept to its limits, if the last try failed. Says it once.
    pub fn room_failure(&self) -> Option<CacheError> {
        self.inner.room_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn note_room(&self, failure: Option<CacheError>) {
        *self.inner.room_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// What [`Store::limit`] was told.
    pub(crate) fn limits(&self) -> Option<&SpaceLimits> {
        self.inner.limits.get().filter(|_| !self.is_read_only())
    }

    /// Images, their names, and remembered resolutions of remote names.
    pub fn tags(&self) -> Tags<'_> {
        Tags::new(self)
    }

    /// The remembered digests of files below one build context. `context` is any text that stays
    /// the same from build to build, such as the context's path.
    ///
    /// # Errors
    ///
    /// When the index cannot be read. A damaged cache is empty, not an error.
    pub fn stat_cache(&self, context: &str) -> Result<StatCache, CacheError> {
        StatCache::load(self, context)
    }

    /// An empty directory on the store's file system for work in progress; removed when dropped,
    /// or by the next sweep when this process dies.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn scratch(&self, prefix: &str) -> Result<Scratch, CacheError> {
        Scratch::create(self, prefix)
    }

    /// Whether something is work in progress of this store: nobody will ask for it again.
    pub fn is_in_progress(&self, path: &Path) -> bool {
        let real = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        real(path).starts_with(real(&self.inner.root.join("tmp")))
    }

    /// Begins a lease: from now on everything that this handle (or a clone) publishes or finds is
    /// kept from prune until the lease is dropped.
    ///
    /// # Errors
    ///
    /// When its file cannot be made.
    pub fn lease(&self) -> Result<Lease, CacheError> {
        if self.inner.read_only {
            return Err(self.refusal());
        }
        if self.limits().is_some() {
            // Others may have used the store without looking at its size.
            sizes::refresh(self)?;
        }
        let inner = Arc::new(LeaseFile::create(&self.locks())?);
        let mut leases = self.leases();
        leases.retain(|lease| lease.strong_count() > 0);
        leases.push(Arc::downgrade(&inner));
        Ok(Lease { _inner: inner })
    }

    /// Waits until nobody else, in this or another process, holds the lock of the step `key`.
    ///
    /// After getting it, look the record up once more: the former holder may have made it.
    ///
    /// # Errors
    ///
    /// [`CacheError::Cancelled`] as soon as `cancel` is cancelled.
    pub fn step_lock(&self, key: &Digest, cancel: &CancelToken) -> Result<StepLock, CacheError> {
        StepLock::wait(self.step_path(key), cancel)
    }

    /// [`Store::step_lock`] without waiting: `None` when somebody else holds it.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be made.
    pub fn try_step_lock(&self, key: &Digest) -> Result<Option<StepLock>, CacheError> {
        StepLock::attempt(self.step_path(key))
    }

    /// Makes everything written so far, by any process, survive a power cut: one `syncfs` and one
    /// flush of the index's log. Returns at once when nothing was written since the last call.
    ///
    /// # Errors
    ///
    /// When the file system reports that it could not write; nothing is marked then.
    pub fn sync(&self) -> Result<(), CacheError> {
        recovery::sync(self)
    }

    fn step_path(&self, key: &Digest) -> PathBuf {
        self.locks().join(format!("step-{}", key.hex()))
    }

    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    pub(crate) fn boot(&self) -> &str {
        &self.inner.boot
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.inner.root.join("locks")
    }

    pub(crate) fn gc_path(&self) -> PathBuf {
        self.inner.root.join("locks/gc.lock")
    }

    pub(crate) fn refusal(&self) -> CacheError {
        CacheError::ReadOnly { path: self.inner.root.clone() }
    }

    /// A path in this process's own directory below `tmp/` where nothing is yet.
    pub(crate) fn temporary(&self, prefix: &str) -> Result<PathBuf, CacheError> {
        if self.inner.read_only {
            return Err(self.refusal());
        }
        let mut owner = self.inner.owner.lock().unwrap_or_else(PoisonError::into_inner);
        match &*owner {
            Some(owner) => owner.fresh(prefix),
            None => owner.insert(Owner::create(&self.inner.root.join("tmp"))?).fresh(prefix),
        }
    }

    fn leases(&self) -> MutexGuard<'_, Vec<Weak<LeaseFile>>> {
        self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes `object` into all leases of this handle. While the returned guard lives no prune
    /// decides; whether the object is (still) there must be asked after this call. `None` when
    /// there is no lease, or every lease names the object already.
    pub(crate) fn protect(&self, object: &Object) -> Result<Option<GcLock>, CacheError> {
        let leases: Vec<_> = self.leases().iter().filter_map(Weak::upgrade).collect();
        if leases.iter().all(|lease| lease.has(object)) {
            return Ok(None);
        }
        let guard = GcLock::shared(&self.gc_path())?;
        for lease in leases {
            lease.add(object)?;
        }
        Ok(Some(guard))
    }

    /// Keeps a directory below `logs/` as long as the leases of this handle.
    ///
    /// # Errors
    ///
    /// When a lease cannot be written.
    pub fn keep_logs(&self, directory: &str) -> Result<(), CacheError> {
        self.protect(&Object::Logs(directory.to_owned())).map(drop)
    }

    /// Notes that a blob got its name, which is not yet durable.
    pub(crate) fn note_blob(&self) {
        self.inner.new_blobs.store(true, Ordering::Release);
    }

    /// Whether that happened since the last call.
    pub(crate) fn take_new_blobs(&self) -> bool {
        self.inner.new_blobs.swap(false, Ordering::AcqRel)
    }

    /// Notes that the record `key` was used; written down by [`Records::flush_used`].
    pub(crate) fn note_used(&self, key: Digest) {
        self.inner.used.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    /// The noted keys; they are forgotten here.
    pub(crate) fn take_used(&self) -> Vec<Digest> {
        std::mem::take(&mut self.inner.used.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets a value of the `meta` table.
    pub(crate) fn set_meta(&self, name: &str, value: &str) -> Result<(), CacheError> {
        self.index().write(Durability::Lazy, |index| {
            let sql = "INSERT OR REPLACE INTO meta(name, value) VALUES (?1, ?2)";
            index.prepare_cached(sql)?.execute((name, value)).map(drop)
        })
    }

    /// A value of the `meta` table.
    pub(crate) fn meta(&self, name: &str) -> Result<Option<String>, CacheError> {
        use rusqlite::OptionalExtension as _;
        self.index().read(|index| {
            let sql = "SELECT value FROM meta WHERE name = ?1";
            index.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()
        })
    }
}

/// Makes the directories. When the layout file is there they all are, because it is made last.
fn make_layout(root: &Path) -> Result<(), CacheError> {
    let layout = root.join("oci-layout");
    if file::exists(&layout) {
        // Asks the kernel, which knows about read-only file systems as well as permissions.
        let write = rustix::fs::Access::WRITE_OK;
        return rustix::fs::access(root.join("locks"), write)
            .and_then(|()| rustix::fs::access(root, write))
            .at("write to", root);
    }
    for ancestor in root.ancestors().collect::<Vec<_>>().into_iter().rev() {
        if !ancestor.as_os_str().is_empty() && rustix::fs::stat(ancestor).is_err() {
            file::make_dir(ancestor, if ancestor == root { 0o700 } else { 0o755 })?;
        }
    }
    claim(root)?;
    for name in DIRECTORIES {
        file::make_dir(&root.join(name), 0o755)?;
    }
    if !file::exists(&root.join("index.json")) {
        let temporary = root.join("tmp").join(format!("json-{}", file::random_name(6)?));
        file::replace(&temporary, &root.join("index.json"), crate::image_json::EMPTY_INDEX)?;
    }
    let temporary = root.join("tmp").join(format!("layout-{}", file::random_name(6)?));
    file::replace(&temporary, &layout, OCI_LAYOUT)
}

/// Keeps others out of a directory that somebody made for a store, and refuses one that is
/// something else.
fn claim(root: &Path) -> Result<(), CacheError> {
    for name in file::names(root)? {
        // What a first command that was killed may have left, or one that runs now makes.
        let ours = DIRECTORIES.contains(&name.as_str()) || name.starts_with("index.");
        if !ours && !["oci-layout", "lost+found"].contains(&name.as_str()) {
            return Err(CacheError::NotAStore { path: root.to_owned(), found: name });
        }
    }
    rustix::fs::chmod(root, rustix::fs::Mode::RWXU).at("keep others out of", root)
}

/// Whether the system does not let us write, as opposed to failing at it.
fn is_refusal(error: &CacheError) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error, CacheError::Io { source, .. }
        if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
}

/// The kernel's id of this boot. Where `/proc` lacks it, everything unsynced counts as lost, which
/// is the safe side.
fn boot_id() -> String {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let read = file::open(path).and_then(|file| file::read_capped(file, path, 100));
    match read {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(_) => file::random_name(16).unwrap_or_default(),
    }
}
