//! Step records: what a step's key led to.
//!
//! A record is found by its definition key, or by a *fast* key that [`Records::alias`] points at
//! it (the early cutoff: the same operation on parents with the same results). It keeps the
//! structured inputs of the key beside the hash, so that a later miss can be explained.

use std::collections::BTreeMap;

use rbuild_types::Digest;
use rusqlite::{OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};

use crate::error::CacheError;
use crate::index::Durability;
use crate::measure::blocks_at;
use crate::sizes::{self, Part};
use crate::snapshots::SnapshotId;
use crate::store::Store;
use crate::{body, file};

/// `last_used` is only written when it would move by more than this, so that a fully cached build
/// writes nothing. Milliseconds.
const USED_GRAIN: i64 = 3_600_000;

/// The same where a store has limits, and what was used last decides many times an hour what stays.
const USED_GRAIN_WITH_LIMITS: i64 = 60_000;

/// Evicted keys that are remembered; older ones go.
const MAX_EVICTED: i64 = 20_000;

/// One finished step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The definition key.
    pub key: Digest,
    /// The operation: `run`, `copy`, `source`, …
    pub op: String,
    /// What went into the key, in the caller's structure.
    pub inputs: serde_json::Value,
    /// The resulting tree, if the step makes one.
    pub snapshot: Option<SnapshotId>,
    /// The key of the root filesystem that the step changes.
    #[serde(default)]
    pub root: Option<Digest>,
    /// The key of an earlier record with the very same result, whose place this one takes.
    #[serde(default)]
    pub same_as: Option<Digest>,
    /// Milliseconds since 1970 when the step ended.
    pub created: i64,
    /// Milliseconds since 1970 of the last use, exact to an hour; to a minute with limits.
    pub last_used: i64,
    /// How long the step ran, in milliseconds.
    pub duration_ms: u64,
    /// The step's name as people see it: `[stage 2/5] RUN make`.
    pub step_name: String,
    /// The step's full output: a path relative to `logs/`.
    pub log: Option<String>,
    /// Keyed digests ([`Store::mac`]) of the secrets that the step used and that are not in its
    /// key, by id.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl StepRecord {
    /// A record of now, with everything optional left out.
    pub fn new(key: Digest, op: &str, step_name: &str, inputs: serde_json::Value) -> Self {
        let now = file::now_ms();
        Self {
            key,
            op: op.to_owned(),
            inputs,
            snapshot: None,
            root: None,
            same_as: None,
            created: now,
            last_used: now,
            duration_ms: 0,
            step_name: step_name.to_owned(),
            log: None,
            secrets: BTreeMap::new(),
        }
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        body::encode(self)
    }

    /// Reads the stored form; `None` when it is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        body::decode(bytes)
    }
}

/// The step records of a store.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    store: &'a Store,
}

impl<'a> Records<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// The record of `key`. `None` too when its snapshot is gone, or when a power cut came between
    /// it and the next sync. Under a lease the snapshot is kept from now on.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn get(&self, key: &Digest) -> Result<Option<StepRecord>, CacheError> {
        let boot = self.store.boot();
        let found = self.store.index().read(|index| {
            let sql = "SELECT body, last_used FROM records
                       WHERE key = ?1 AND (synced = 1 OR boot = ?2)";
            index.prepare_cached(sql)?.query_row((key.as_bytes(), boot), decode).optional()
        })?;
        let Some(record) = found.flatten().filter(|record| record.key == *key) else {
            return Ok(None);
        };
        if let Some(snapshot) = &record.snapshot
            && self.store.snapshots().meta(snapshot)?.is_none()
        {
            return Ok(None);
        }
        if file::now_ms() - record.last_used > self.used_grain() {
            self.store.note_used(*key);
        }
        Ok(Some(record))
    }

    /// Writes a record, replacing one of the same key.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn put(&self, record: &StepRecord) -> Result<(), CacheError> {
        let encoded = record
            .encode()
            .map_err(std::io::Error::from)
            .map_err(|error| CacheError::io("encode", record.step_name.as_ref(), error))?;
        let boot = self.store.boot();
        let log = self.store.limits().and(record.log.as_ref());
        let log = log.map_or(0, |log| blocks_at(&self.store.root().join("logs").join(log)));
        self.store.index().write(Durability::Lazy, |index| {
            let sql = "INSERT OR REPLACE INTO
                       records(key, snapshot, step_name, last_used, boot, synced, body, root)
                       VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)";
            index.prepare_cached(sql)?.execute((
                record.key.as_bytes(),
                record.snapshot.as_ref().map(SnapshotId::as_str),
                &record.step_name,
                record.last_used,
                boot,
                &encoded,
                record.root.as_ref().map(Digest::as_bytes),
            ))?;
            let sql = "DELETE FROM evicted WHERE key = ?1";
            index.prepare_cached(sql)?.execute([record.key.as_bytes()])?;
            sizes::grow(index, Part::Logs, sizes::signed(log))
        })
    }

    /// Lets `fast` lead to the record of `key`, replacing where it led before.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn alias(&self, fast: &Digest, key: &Digest) -> Result<(), CacheError> {
        if self.get_alias(fast)? == Some(*key) {
            return Ok(());
        }
        self.store.index().write(Durability::Lazy, |index| {
            let sql = "INSERT OR REPLACE INTO aliases(fast, key) VALUES (?1, ?2)";
            index.prepare_cached(sql)?.execute((fast.as_bytes(), key.as_bytes())).map(drop)
        })
    }

    /// The key that `fast` leads to; its record may be gone.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn get_alias(&self, fast: &Digest) -> Result<Option<Digest>, CacheError> {
        self.store.index().read(|index| {
            let sql = "SELECT key FROM aliases WHERE fast = ?1";
            let mut statement = index.prepare_cached(sql)?;
            let key = |row: &Row<'_>| row.get(0).map(Digest::from_bytes);
            statement.query_row([fast.as_bytes()], key).optional()
        })
    }

    /// The newest records of steps with this name, newest first, at most `limit`. They may be
    /// useless as results (their snapshots may be gone): they are there to explain a miss.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn by_step_name(&self, name: &str, limit: usize) -> Result<Vec<StepRecord>, CacheError> {
        let rows: Vec<Option<StepRecord>> = self.store.index().read(|index| {
            let sql = "SELECT body, last_used FROM records WHERE step_name = ?1
                       ORDER BY seq DESC LIMIT ?2";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            index.prepare_cached(sql)?.query_map((name, limit), decode)?.collect()
        })?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// The newest records of steps that change the root filesystem `root`, newest first, at most
    /// `limit`. Like those of [`Records::by_step_name`] they may have no result any more.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn by_root(&self, root: &Digest, limit: usize) -> Result<Vec<StepRecord>, CacheError> {
        let rows: Vec<Option<StepRecord>> = self.store.index().read(|index| {
            let sql = "SELECT body, last_used FROM records WHERE root = ?1
                       ORDER BY seq DESC LIMIT ?2";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            index.prepare_cached(sql)?.query_map((root.as_bytes(), limit), decode)?.collect()
        })?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// The record of `key`, whether or not its result is still there: to explain a miss.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn peek(&self, key: &Digest) -> Result<Option<StepRecord>, CacheError> {
        let found = self.store.index().read(|index| {
            let sql = "SELECT body, last_used FROM records WHERE key = ?1";
            index.prepare_cached(sql)?.query_row([key.as_bytes()], decode).optional()
        })?;
        Ok(found.flatten())
    }

    /// When (milliseconds since 1970) the record of `key` was pruned, if it was.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn evicted(&self, key: &Digest) -> Result<Option<i64>, CacheError> {
        self.store.index().read(|index| {
            let sql = "SELECT at FROM evicted WHERE key = ?1";
            index.prepare_cached(sql)?.query_row([key.as_bytes()], |row| row.get(0)).optional()
        })
    }

    /// All records that a power cut has not made useless, oldest first. Their snapshots are not
    /// looked at.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<StepRecord>, CacheError> {
        let boot = self.store.boot();
        let rows: Vec<Option<StepRecord>> = self.store.index().read(|index| {
            let sql = "SELECT body, last_used FROM records
                       WHERE synced = 1 OR boot = ?1 ORDER BY seq";
            index.prepare_cached(sql)?.query_map([boot], decode)?.collect()
        })?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Removes the record and what leads to it, not its snapshot. Says whether it was there.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn remove(&self, key: &Digest) -> Result<bool, CacheError> {
        self.store.index().write(Durability::Lazy, |index| remove(index, key, None))
    }

    /// Notes that the record was used now. Costs nothing until [`Records::flush_used`];
    /// [`Records::get`] does the same by itself.
    pub fn touch(&self, key: &Digest) {
        self.store.note_used(*key);
    }

    fn used_grain(&self) -> i64 {
        if self.store.limits().is_some() { USED_GRAIN_WITH_LIMITS } else { USED_GRAIN }
    }

    /// Writes down what was used, in one transaction, as far as it moves a time by more than an
    /// hour, or a minute where the store has limits. Call it once at the end of a build.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn flush_used(&self) -> Result<(), CacheError> {
        let used = self.store.take_used();
        let now = file::now_ms();
        let stale = self.store.index().read(|index| {
            let sql = "SELECT 1 FROM records WHERE key = ?1 AND last_used < ?2";
            let mut statement = index.prepare_cached(sql)?;
            used.iter().try_fold(Vec::new(), |mut stale, key| {
                if statement.exists((key.as_bytes(), now - self.used_grain()))? {
                    stale.push(*key);
                }
                Ok(stale)
            })
        })?;
        if stale.is_empty() || self.store.is_read_only() {
            return Ok(());
        }
        self.store.index().write(Durability::Lazy, |index| {
            let sql = "UPDATE records SET last_used = ?2 WHERE key = ?1 AND last_used < ?2";
            let mut statement = index.prepare_cached(sql)?;
            stale.iter().try_for_each(|key| statement.execute((key.as_bytes(), now)).map(drop))
        })
    }
}

/// Decodes `body, last_used`; `None` when the body is damaged.
pub(crate) fn decode(row: &Row<'_>) -> rusqlite::Result<Option<StepRecord>> {
    let record = row.get_ref(0)?.as_blob().ok().and_then(StepRecord::decode);
    let last_used = row.get(1)?;
    Ok(record.map(|record| StepRecord { last_used, ..record }))
}

/// Removes a record's row with its aliases; `evicted` is the time to remember it by.
pub(crate) fn remove(
    index: &rusqlite::Connection,
    key: &Digest,
    evicted: Option<i64>,
) -> rusqlite::Result<bool> {
    let key = key.as_bytes();
    index.prepare_cached("DELETE FROM aliases WHERE key = ?1")?.execute([key])?;
    let removed = index.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([key])? > 0;
    if let Some(at) = evicted.filter(|_| removed) {
        let sql = "INSERT OR REPLACE INTO evicted(key, at) VALUES (?1, ?2)";
        index.prepare_cached(sql)?.execute((key, at))?;
    }
    Ok(removed)
}

/// Forgets the oldest evictions beyond the bound.
pub(crate) fn trim_evicted(index: &rusqlite::Connection) -> rusqlite::Result<()> {
    let sql = "DELETE FROM evicted WHERE key IN
               (SELECT key FROM evicted ORDER BY at DESC LIMIT -1 OFFSET ?1)";
    index.prepare_cached(sql)?.execute([MAX_EVICTED]).map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Value>()),
            ]
        })
    }

    fn records() -> impl Strategy<Value = StepRecord> {
        let texts = (".*", ".*", prop::option::of(".*"));
        let digests = (any::<[u8; 32]>(), prop::option::of(any::<[u8; 32]>()));
        let numbers = (any::<i64>(), any::<i64>(), any::<u64>());
        let rest = (prop::option::of("[a-z0-9]{1,64}"), prop::option::of(any::<[u8; 9]>()), json());
        (texts, digests, numbers, rest).prop_map(|(texts, digests, numbers, rest)| StepRecord {
            key: Digest::from_bytes(digests.0),
            op: texts.0,
            inputs: rest.2,
            snapshot: rest.0.map(|id| id.parse().unwrap()),
            root: digests.1.map(Digest::from_bytes),
            same_as: digests.1.map(Digest::from_bytes),
            created: numbers.0,
            last_used: numbers.1,
            duration_ms: numbers.2,
            step_name: texts.1,
            log: texts.2,
            secrets: rest.1.into_iter().map(|mac| ("id".to_owned(), hex::encode(mac))).collect(),
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(record in records()) {
            prop_assert_eq!(StepRecord::decode(&record.encode().unwrap()), Some(record));
        }

        #[test]
        fn one_changed_bit_is_noticed(record in records(), at in any::<prop::sample::Index>()) {
            let mut bytes = record.encode().unwrap();
            let at = at.index(bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(StepRecord::decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            prop_assert_eq!(StepRecord::decode(&bytes), None);
        }
    }
}
