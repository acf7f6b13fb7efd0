//! `index.db`: one SQLite file that all processes share.
//!
//! * WAL, so that readers never wait; every write is a `BEGIN IMMEDIATE` transaction.
//! * `synchronous=NORMAL`: a commit is atomic and survives `kill -9`, but a power cut may take
//!   the newest commits. A write that must survive asks for [`Durability::Synced`], which flushes
//!   the log with everything before it.
//! * `user_version` is the format. An older one is brought up to date; a newer one is refused and
//!   the file is not touched.
//! * A file that is not a database, or in which SQLite finds damage at any time, is renamed to
//!   `index.db.corrupt-N`, and a new index is filled with what survives elsewhere: images from
//!   `index.json`, synced snapshots from their sidecars. Other processes notice the changed inode
//!   before their next access and open the new file.
//! * SQLite must not delete or checkpoint the log when a connection closes: it works by *name*,
//!   and after such a rename the name belongs to the new index. So that is switched off, and
//!   [`Index`] shortens a long log itself.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::error::{At as _, CacheError};
use crate::file;

/// Number of the format written here: an older version does not know what came later.
pub(crate) const FORMAT: i64 = CHANGES.len() as i64;

/// What makes each format of the one before it; the first makes all tables of an empty file.
const CHANGES: &[&str] = &[
    SCHEMA,
    EXPLANATIONS,
    crate::sizes::TABLE,
    crate::origins::TABLE,
    crate::sources::TABLE,
    crate::builds::TABLE,
];

/// How long a writer waits for another process's transaction. Those take milliseconds; the limit
/// only ends a wait for a stopped process.
const BUSY: Duration = Duration::from_secs(60);

/// A log longer than this is written back by the process that closes the index, because the next
/// one would have to read all of it.
const LONG_LOG: u64 = 512 << 10;

/// Bytes by which SQLite extends the log's shared memory.
const SHARED_MEMORY: u64 = 32 << 10;

const SCHEMA: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE snapshots(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, parent TEXT, chain_id BLOB,
  boot TEXT NOT NULL, synced INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX snapshots_chain ON snapshots(chain_id) WHERE chain_id IS NOT NULL;
CREATE INDEX snapshots_parent ON snapshots(parent) WHERE parent IS NOT NULL;
CREATE INDEX snapshots_unsynced ON snapshots(seq) WHERE synced = 0;
CREATE TABLE records(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, snapshot TEXT,
  step_name TEXT NOT NULL, last_used INTEGER NOT NULL, boot TEXT NOT NULL,
  synced INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX records_snapshot ON records(snapshot) WHERE snapshot IS NOT NULL;
CREATE INDEX records_step ON records(step_name, seq);
CREATE INDEX records_unsynced ON records(seq) WHERE synced = 0;
CREATE TABLE aliases(fast BLOB PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX aliases_key ON aliases(key);
CREATE TABLE evicted(key BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE images(
  manifest BLOB PRIMARY KEY, media_type TEXT NOT NULL, manifest_size INTEGER NOT NULL,
  image_id BLOB NOT NULL, size INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE tags(reference TEXT PRIMARY KEY, manifest BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX tags_manifest ON tags(manifest);
CREATE TABLE remembered(
  reference TEXT NOT NULL, platform TEXT NOT NULL, manifest BLOB NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(reference, platform)) WITHOUT ROWID;
CREATE TABLE stat_cache(context TEXT PRIMARY KEY, at INTEGER NOT NULL, data BLOB NOT NULL);
";

/// Builds, and which key a record's root filesystem has: what later ones are compared with.
const EXPLANATIONS: &str = "
ALTER TABLE records ADD COLUMN root BLOB;
CREATE INDEX records_root ON records(root, seq) WHERE root IS NOT NULL;
CREATE TABLE builds(
  project TEXT PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX builds_at ON builds(at);
";

/// What a write survives besides `kill -9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Nothing more: a power cut may undo it.
    Lazy,
    /// A power cut too, together with all earlier writes.
    Synced,
}

/// The index of one store handle.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    read_only: bool,
    refill: Refill,
    connection: Mutex<Opened>,
}

/// Fills a new, empty index of the store at a root with what survives outside of it; runs inside
/// the transaction that makes the tables.
pub(crate) type Refill = fn(&Path, &Connection) -> rusqlite::Result<()>;

#[derive(Debug)]
struct Opened {
    connection: Connection,
    /// Device and inode, to notice that another process has put a new index in its place.
    inode: (u64, u64),
}

impl Index {
    /// Opens `<root>/index.db`, making or replacing it as the module's header says.
    pub(crate) fn open(root: &Path, read_only: bool, refill: Refill) -> Result<Self, CacheError> {
        let path = root.join("index.db");
        let opened = match connect(&path, read_only, refill) {
            Err(CacheError::Index { source, .. }) if is_damage(&source) && !read_only => {
                set_aside(&path)?;
                connect(&path, read_only, refill)?
            }
            other => other?,
        };
        Ok(Self { path, read_only, refill, connection: Mutex::new(opened) })
    }

    /// Runs `look` on the index.
    pub(crate) fn read<T>(
        &self,
        look: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.healing(|connection| look(connection))
    }

    /// Runs `change` in one transaction.
    pub(crate) fn write<T>(
        &self,
        durability: Durability,
        change: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        if self.read_only {
            let root = self.path.parent().unwrap_or(&self.path);
            return Err(CacheError::ReadOnly { path: root.to_owned() });
        }
        self.healing(|connection| {
            if durability == Durability::Synced {
                connection.execute_batch("PRAGMA synchronous=FULL")?;
            }
            let result = transact(connection, &change);
            if durability == Durability::Synced {
                connection.execute_batch("PRAGMA synchronous=NORMAL")?;
            }
            result
        })
    }

    /// Runs `work`; when SQLite reports damage, replaces the index and runs it once more.
    fn healing<T>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        // A panic in another thread cannot leave a transaction open: dropping it rolls back.
        let mut opened = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.read_only && inode(&self.path) != Some(opened.inode) {
            *opened = connect(&self.path, self.read_only, self.refill)?;
        }
        match work(&mut opened.connection) {
            Err(error) if is_damage(&error) && !self.read_only => {
                // Unless another process has found the damage first and put a new index there.
                if inode(&self.path) == Some(opened.inode) {
                    set_aside(&self.path)?;
                }
                *opened = connect(&self.path, self.read_only, self.refill)?;
                work(&mut opened.connection).map_err(|source| self.error(source))
            }
            other => other.map_err(|source| self.error(source)),
        }
    }

    fn error(&self, source: rusqlite::Error) -> CacheError {
        index_error(&self.path, source)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let log = with_suffix(&self.path, "-wal");
        if self.read_only || rustix::fs::stat(&log).map_or(0, |stat| stat.st_size as u64) < LONG_LOG
        {
            return;
        }
        let opened = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Only an economy for the next process, so neither waiting nor failing is worth it.
        let _ = opened.connection.busy_timeout(Duration::ZERO);
        let _ = opened.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

fn transact<T>(
    connection: &mut Connection,
    change: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = change(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// Opens the file, making the tables when it is empty.
fn connect(path: &Path, read_only: bool, refill: Refill) -> Result<Opened, CacheError> {
    let fail = |source| index_error(path, source);
    let connection = match read_only {
        false => Connection::open_with_flags(path, flags(false)),
        true => open_read_only(path),
    };
    let mut connection = connection.map_err(fail)?;
    connection.busy_timeout(BUSY).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fail)?;
    let found = format(&connection).map_err(fail)?;
    if found > FORMAT {
        return Err(CacheError::NewerFormat { path: path.to_owned(), found, known: FORMAT });
    }
    if !read_only {
        if found < FORMAT {
            let root = path.parent().unwrap_or(path);
            bring_up(&mut connection, &|connection| refill(root, connection)).map_err(fail)?;
        }
        connection.execute_batch("PRAGMA synchronous=NORMAL").map_err(fail)?;
    }
    let inode = inode(path).unwrap_or_default();
    Ok(Opened { connection, inode })
}

fn flags(read_only: bool) -> OpenFlags {
    let access = match read_only {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// A log beside the file can be read without writing only while its shared memory file exists;
/// without one, the file alone is the truth.
fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let first = Connection::open_with_flags(path, flags(true));
    if first.as_ref().is_ok_and(|connection| format(connection).is_ok()) {
        return first;
    }
    let mut uri = String::from("file:");
    for byte in std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    Connection::open_with_flags(uri, flags(true))
}

fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the tables, or those that an older version lacked, unless another process was faster.
fn bring_up(
    connection: &mut Connection,
    refill: &dyn Fn(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    switch_to_wal(connection)?;
    transact(connection, |connection| {
        let found = format(connection)?;
        let missing = usize::try_from(found).ok().and_then(|found| CHANGES.get(found..));
        let Some(missing @ [_, ..]) = missing else { return Ok(()) };
        for change in missing {
            connection.execute_batch(change)?;
        }
        connection.execute_batch(&format!("PRAGMA user_version={FORMAT}"))?;
        if found == 0 { refill(connection) } else { Ok(()) }
    })
}

/// Needs the file for itself for a moment. Where others do the same, SQLite does not wait for
/// them as it does everywhere else, because they might wait for each other.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<()> {
    let end = Instant::now() + BUSY;
    loop {
        match connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Whether SQLite says that the file is broken, or its tables are not ours.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || message.as_deref().is_some_and(is_foreign)
        }
        rusqlite::Error::SqlInputError { msg, .. } => is_foreign(msg),
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) => {
            true
        }
        _ => false,
    }
}

/// Whether the message says that the tables are not the ones of [`SCHEMA`].
fn is_foreign(message: &str) -> bool {
    ["no such table", "no such column", "already exists"].iter().any(|part| message.contains(part))
}

/// A full disk is told apart: SQLite says so itself when a page does not fit, but calls it an I/O
/// error when the log's shared memory does not.
fn index_error(path: &Path, source: rusqlite::Error) -> CacheError {
    let is_full = || {
        let nearest = path.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok());
        nearest.is_some_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < SHARED_MEMORY)
    };
    let full = || CacheError::io("write", path, std::io::ErrorKind::StorageFull.into());
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => full(),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full() => full(),
        _ => CacheError::Index { path: path.to_owned(), source },
    }
}

/// Renames the broken index with its log, keeping it for whoever wants to know why.
fn set_aside(path: &Path) -> Result<(), CacheError> {
    for number in 1.. {
        let aside = with_suffix(path, &format!(".corrupt-{number}"));
        if file::exists(&aside) {
            continue;
        }
        for suffix in ["-wal", "-shm"] {
            let from = with_suffix(path, suffix);
            if file::exists(&from) {
                file::rename(&from, &with_suffix(&aside, suffix))?;
            }
        }
        return file::rename(path, &aside);
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    rustix::fs::stat(path).at("stat", path).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_format_is_brought_up_and_keeps_its_rows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(CHANGES[0]).unwrap();
        old.execute_batch("INSERT INTO meta VALUES ('a', 'b')").unwrap();
        old.execute_batch(CHANGES[1]).unwrap();
        let build = "INSERT INTO builds VALUES ('p', 7, x'00'); PRAGMA user_version=2";
        old.execute_batch(build).unwrap();
        drop(old);
        let never = |_: &Path, _: &Connection| panic!("it is not empty");
        let index = Index::open(directory.path(), false, never).unwrap();
        let count = "SELECT (SELECT count(*) FROM meta) + (SELECT count(*) FROM builds)";
        let counted = |index: &Connection| index.query_row(count, [], |row| row.get::<_, i64>(0));
        assert_eq!(index.read(counted).unwrap(), 2);
        assert_eq!(index.read(format).unwrap(), FORMAT);
    }
}
