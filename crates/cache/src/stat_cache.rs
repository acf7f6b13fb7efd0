//! Remembered digests of files, so that an unchanged context is not read again.
//!
//! One row per context, read whole with one query: eight bytes of checksum, then 72 bytes per file
//! (five little-endian words of [`FileStamp`], 32 bytes of digest). A table of 32-bit slots is
//! built over it on load, which is faster than parsing 50,000 rows by an order of magnitude.
//!
//! The racy rule (git's): a file whose mtime or ctime lies less than two seconds before the moment
//! at which its hashing *began* is not remembered, because it could be changed once more within
//! the same tick of the clock. A stamp includes ctime, which no program can set.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_types::Digest;
use rusqlite::OptionalExtension as _;

use crate::body;
use crate::error::CacheError;
use crate::file;
use crate::index::Durability;
use crate::store::Store;

const CHECKSUM: usize = 8;
const ENTRY: usize = 72;
const STAMP: usize = 40;

/// Files younger than this when hashed are not remembered. Nanoseconds.
const RACY: i128 = 2_000_000_000;

/// More entries are never written: 4 million files are 288 MB.
const MAX_ENTRIES: usize = 4_000_000;

/// Unseen entries are dropped when there are more than this many beside as many as were seen.
const SPARE: usize = 10_000;

/// What tells whether a file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or metadata, nanoseconds since 1970; set by the kernel only.
    pub ctime_ns: i64,
}

impl FileStamp {
    fn to_bytes(self) -> [u8; STAMP] {
        let words = [self.dev, self.ino, self.size, self.mtime_ns as u64, self.ctime_ns as u64];
        let mut bytes = [0; STAMP];
        for (part, word) in bytes.chunks_exact_mut(8).zip(words) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Whether the file could change unnoticed after being hashed at `hashed_at`.
    fn is_racy(&self, hashed_at: SystemTime) -> bool {
        let hashed_at = match hashed_at.duration_since(UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            Err(_) => return true,
        };
        i128::from(self.mtime_ns.max(self.ctime_ns)) > hashed_at - RACY
    }
}

/// The remembered digests of one context. Shared by the threads of a build by reference.
#[derive(Debug)]
pub struct StatCache {
    store: Store,
    context: String,
    /// The stored entries without the checksum.
    entries: Vec<u8>,
    /// Open addressing over `entries`: number of an entry plus one, or 0.
    slots: Vec<u32>,
    /// One bit per entry of `entries` that was found.
    seen: Vec<AtomicU64>,
    added: Mutex<HashMap<FileStamp, Digest>>,
}

impl StatCache {
    /// Reads what is remembered for `context`.
    pub(crate) fn load(store: &Store, context: &str) -> Result<Self, CacheError> {
        let data: Option<Vec<u8>> = store.index().read(|index| {
            let sql = "SELECT data FROM stat_cache WHERE context = ?1";
            index.prepare_cached(sql)?.query_row([context], |row| row.get(0)).optional()
        })?;
        let entries = data.and_then(verified).unwrap_or_default();
        let count = entries.len() / ENTRY;
        let mut slots = vec![0; if count == 0 { 0 } else { (count * 2).next_power_of_two() }];
        for number in 0..count {
            let mut slot = slot_of(&entries[number * ENTRY..], slots.len());
            while slots[slot] != 0 {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = number as u32 + 1;
        }
        let seen = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let context = context.to_owned();
        Ok(Self { store: store.clone(), context, entries, slots, seen, added: Mutex::default() })
    }

    /// Entries that were remembered before this build.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// Whether nothing was remembered before this build.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The digest of the file's content, if the very same stamp was seen before.
    pub fn get(&self, stamp: &FileStamp) -> Option<Digest> {
        if self.slots.is_empty() {
            return self.get_added(stamp);
        }
        let wanted = stamp.to_bytes();
        let mut slot = slot_of(&wanted, self.slots.len());
        while let Some(number) = (self.slots[slot] as usize).checked_sub(1) {
            let entry = &self.entries[number * ENTRY..][..ENTRY];
            if entry[..STAMP] == wanted {
                self.seen[number / 64].fetch_or(1 << (number % 64), Ordering::Relaxed);
                return entry[STAMP..].try_into().ok().map(Digest::from_bytes);
            }
            slot = (slot + 1) % self.slots.len();
        }
        self.get_added(stamp)
    }

    fn get_added(&self, stamp: &FileStamp) -> Option<Digest> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).get(stamp).copied()
    }

    /// Remembers the digest of a file, unless the racy rule forbids it. `stamp` is from *before*
    /// the file was read (and unchanged after), `hashed_at` the moment when reading began.
    pub fn insert(&self, stamp: FileStamp, digest: Digest, hashed_at: SystemTime) {
        if !stamp.is_racy(hashed_at) {
            let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
            added.insert(stamp, digest);
        }
    }

    /// Writes the cache; does nothing when nothing new was remembered. Entries of files that have
    /// changed since go, and so do unseen ones when they are the greater part.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn save(&self) -> Result<(), CacheError> {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        if added.is_empty() {
            return Ok(());
        }
        let inodes: std::collections::HashSet<_> =
            added.keys().map(|stamp| (stamp.dev.to_le_bytes(), stamp.ino.to_le_bytes())).collect();
        let is_seen = |number: usize| {
            self.seen[number / 64].load(Ordering::Relaxed) >> (number % 64) & 1 == 1
        };
        let seen = (0..self.len()).filter(|number| is_seen(*number)).count() + added.len();
        let keep_unseen = self.len() <= 2 * seen + SPARE;
        let mut data = vec![0; CHECKSUM];
        for (stamp, digest) in added.iter() {
            data.extend_from_slice(&stamp.to_bytes());
            data.extend_from_slice(digest.as_bytes());
        }
        for (number, entry) in self.entries.chunks_exact(ENTRY).enumerate() {
            let inode = (entry[..8].try_into(), entry[8..16].try_into());
            let (Ok(dev), Ok(ino)) = inode else { continue };
            if !inodes.contains(&(dev, ino)) && (keep_unseen || is_seen(number)) {
                data.extend_from_slice(entry);
            }
        }
        data.truncate(CHECKSUM + MAX_ENTRIES * ENTRY);
        let sum = body::checksum(&data[CHECKSUM..]);
        data[..CHECKSUM].copy_from_slice(&sum);
        self.store.index().write(Durability::Lazy, |index| {
            let sql = "INSERT OR REPLACE INTO stat_cache(context, at, data) VALUES (?1, ?2, ?3)";
            index.prepare_cached(sql)?.execute((&self.context, file::now_ms(), &data)).map(drop)
        })
    }
}

/// The entries of a stored row whose checksum fits.
fn verified(mut data: Vec<u8>) -> Option<Vec<u8>> {
    let (sum, entries) = data.split_at_checked(CHECKSUM)?;
    let fits = entries.len() % ENTRY == 0 && entries.len() / ENTRY <= MAX_ENTRIES;
    if !fits || sum != body::checksum(entries) {
        return None;
    }
    data.drain(..CHECKSUM);
    Some(data)
}

/// Where the search for a stamp begins; inode numbers are the part that differs.
fn slot_of(stamp: &[u8], slots: usize) -> usize {
    let word = |at: usize| stamp[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    // Fibonacci hashing: the upper bits of the product are well mixed.
    let mixed = (word(8) ^ word(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize % slots
}
