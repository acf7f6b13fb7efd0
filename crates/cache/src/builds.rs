//! Past builds: what their steps did, what the next build is explained by, and what can be entered.
//!
//! A build has an id, which is also its directory of logs. It is written down when its first step
//! runs, and again when it ends; so of one that was killed there is what it had begun. The newest
//! builds are kept, and the last one of each project, which is any text that stays the same from
//! build to build. The inputs of steps are not repeated here: they are in the records of the keys.

use std::collections::HashSet;
use std::path::PathBuf;

use rbuild_types::{Digest, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};

use crate::error::CacheError;
use crate::index::Durability;
use crate::lease::Protected;
use crate::snapshots::SnapshotId;
use crate::store::Store;
use crate::{body, file};

/// Builds that are remembered.
const MAX_BUILDS: i64 = 100;
/// Bytes of their records together.
const MAX_BYTES: i64 = 16 << 20;
/// Builds after which those that are too old are looked for.
const TRIM_EVERY: i64 = 8;
/// Builds that are remembered for being the last ones of their projects.
const MAX_PROJECTS: i64 = 500;

/// Several builds of a project, where an older store had the last one of each.
pub(crate) const TABLE: &str = "
DROP INDEX builds_at;
ALTER TABLE builds RENAME TO last_builds;
CREATE TABLE builds(
  id TEXT PRIMARY KEY, project TEXT NOT NULL, at INTEGER NOT NULL, ended INTEGER NOT NULL,
  body BLOB NOT NULL);
INSERT INTO builds SELECT lower(hex(randomblob(8))), project, at, 1, body FROM last_builds;
DROP TABLE last_builds;
CREATE INDEX builds_at ON builds(at);
CREATE INDEX builds_project ON builds(project, at);
";

/// One build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its id, and its directory below `logs/`.
    #[serde(skip)]
    pub id: String,
    /// What was built, for people: where the Dockerfile is.
    pub title: String,
    /// The directory of its context, where that is one of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<PathBuf>,
    /// The ignore file that held for it, where that is not the one of the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_file: Option<PathBuf>,
    /// The network of its steps, where it was neither the host's nor none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Milliseconds since 1970 when its first step ran, or it ended; 0 is unknown.
    #[serde(default)]
    pub began: i64,
    /// Milliseconds since 1970 when it ended; 0 while it runs, and when it was killed.
    pub ended: i64,
    /// Whether it ended well.
    pub succeeded: bool,
    /// Its steps in the order of the Dockerfile.
    pub steps: Vec<BuiltStep>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltStep {
    /// Its name as people see it: `[stage 2/5] RUN make`.
    pub name: String,
    /// Lower-cased name of its stage, or `stage-N`.
    pub stage: String,
    /// Its operation: `run`, `copy`, `source`, …
    pub op: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The key that it had, if it had one.
    pub key: Option<Digest>,
    /// The key under which it last had a result, in this build or an earlier one.
    pub known: Option<Digest>,
    /// What a source was: the digest or commit that its name stood for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Why it ran, the most telling first; a choice where there is much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// What it made, with all below: the root filesystem after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Its output, below `logs/`: of this build, or of the one that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Other root filesystems that its mounts show, by the numbers of its inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Option<SnapshotId>>,
    /// How it failed; of one that was stopped because another one failed, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailedStep>,
}

/// The failure of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStep {
    /// Why, in words.
    pub message: String,
    /// The exit code of its process.
    pub code: Option<i32>,
    /// Its root filesystem as it was then, if that was kept.
    pub snapshot: Option<SnapshotId>,
    /// What went into its key, in the caller's structure: no record has it.
    pub inputs: serde_json::Value,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Its result was there.
    Cached,
    /// It ran.
    Ran,
    /// It ran and failed, or was stopped.
    Failed,
    /// Nothing needed it, or the build ended before.
    Skipped,
}

/// The builds of a store.
#[derive(Debug, Clone, Copy)]
pub struct Builds<'a> {
    store: &'a Store,
}

impl<'a> Builds<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// The last build of a project.
    ///
    /// # Errors
    ///
    /// When the index cannot be read. A damaged row counts as none.
    pub fn last_of(&self, project: &str) -> Result<Option<BuildRecord>, CacheError> {
        let found = self.store.index().read(|index| {
            let sql = "SELECT id, body FROM builds WHERE project = ?1 AND ended
                       ORDER BY at DESC LIMIT 1";
            index.prepare_cached(sql)?.query_row([project], decode).optional()
        })?;
        Ok(found.flatten())
    }

    /// The last build of all that has ended.
    ///
    /// # Errors
    ///
    /// As [`Builds::last_of`].
    pub fn last(&self) -> Result<Option<BuildRecord>, CacheError> {
        let found = self.store.index().read(|index| {
            let sql = "SELECT id, body FROM builds WHERE ended ORDER BY at DESC LIMIT 1";
            index.prepare_cached(sql)?.query_row([], decode).optional()
        })?;
        Ok(found.flatten())
    }

    /// All builds, the newest first, with those that run and those that were killed.
    ///
    /// # Errors
    ///
    /// As [`Builds::last_of`].
    pub fn list(&self) -> Result<Vec<BuildRecord>, CacheError> {
        let found: Vec<_> = self.store.index().read(|index| {
            let sql = "SELECT id, body FROM builds ORDER BY at DESC, rowid DESC";
            index.prepare_cached(sql)?.query_map([], decode)?.collect()
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether it is known how the build ended; not so of one that is not remembered.
    ///
    /// # Errors
    ///
    /// As [`Builds::last_of`].
    pub fn has_ended(&self, id: &str) -> Result<bool, CacheError> {
        let found = self.store.index().read(|index| {
            let sql = "SELECT ended FROM builds WHERE id = ?1";
            index.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
        })?;
        Ok(found.unwrap_or(false))
    }

    /// The ids of the builds that run now.
    ///
    /// # Errors
    ///
    /// When leases cannot be read.
    pub fn running(&self) -> Result<HashSet<String>, CacheError> {
        Ok(Protected::read(&self.store.locks())?.logs)
    }

    /// Writes down a build that has begun to run steps.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn begin(&self, project: &str, build: BuildRecord) -> Result<(), CacheError> {
        let began = file::now_ms();
        self.write(project, &BuildRecord { began, ended: 0, ..build }, began)
    }

    /// Writes down how a build ended, which is now, and forgets builds that are too old.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn put(&self, project: &str, build: BuildRecord) -> Result<(), CacheError> {
        let ended = file::now_ms();
        let began = if build.began == 0 { ended } else { build.began };
        self.write(project, &BuildRecord { began, ended, ..build }, ended)
    }

    fn write(&self, project: &str, build: &BuildRecord, at: i64) -> Result<(), CacheError> {
        let encoded = body::encode(build)
            .map_err(std::io::Error::from)
            .map_err(|error| CacheError::io("encode", project.as_ref(), error))?;
        let has_ended = build.ended != 0;
        self.store.index().write(Durability::Lazy, |index| {
            let sql = "INSERT OR REPLACE INTO builds(id, project, at, ended, body)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let row = (&build.id, project, at, has_ended, &encoded);
            index.prepare_cached(sql)?.execute(row)?;
            match index.last_insert_rowid() % TRIM_EVERY {
                0 => trim(index),
                _ => Ok(()),
            }
        })
    }
}

/// Forgets builds that are too many, or whose records are too large together.
fn trim(index: &Connection) -> rusqlite::Result<()> {
    let sql = "WITH listed AS (SELECT rowid AS place, ended,
                 row_number() OVER newest AS number, sum(length(body)) OVER newest AS bytes,
                 row_number() OVER (PARTITION BY project, ended ORDER BY at DESC, rowid DESC)
                   AS of_project
                 FROM builds WINDOW newest AS (ORDER BY at DESC, rowid DESC))
               DELETE FROM builds WHERE rowid IN (SELECT place FROM listed WHERE number > ?2
                 OR (number > ?1 OR bytes > ?3) AND (of_project > 1 OR NOT ended))";
    index.prepare_cached(sql)?.execute((MAX_BUILDS, MAX_PROJECTS, MAX_BYTES)).map(drop)
}

/// Decodes `id, body`; `None` when the body is damaged.
fn decode(row: &Row<'_>) -> rusqlite::Result<Option<BuildRecord>> {
    let id = row.get(0)?;
    let build = row.get_ref(1)?.as_blob().ok().and_then(body::decode);
    Ok(build.map(|build| BuildRecord { id, ..build }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(id: usize, project: &str) -> BuildRecord {
        BuildRecord { id: format!("{id:08x}"), title: project.to_owned(), ..<_>::default() }
    }

    #[test]
    fn the_newest_builds_stay_and_the_last_of_each_project() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let builds = store.builds();
        builds.put("old", build(1, "old")).unwrap();
        // Killed, and newer than the one that ended.
        builds.begin("old", build(300, "old")).unwrap();
        builds.begin("often", build(2, "often")).unwrap();
        for id in 3..300 {
            builds.begin("often", build(id, "often")).unwrap();
            builds.put("often", build(id, "often")).unwrap();
        }
        let kept = builds.list().unwrap();
        let most = (MAX_BUILDS + TRIM_EVERY) as usize;
        assert!((MAX_BUILDS as usize..=most + 1).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept[0].id, format!("{:08x}", 299));
        assert_eq!(kept.last().unwrap().title, "old");
        assert!(kept.iter().all(|build| build.ended != 0));
        assert_eq!(builds.last_of("old").unwrap().unwrap().id, "00000001");
    }

    #[test]
    fn one_that_has_not_ended_is_listed_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let builds = store.builds();
        builds.put("p", build(1, "p")).unwrap();
        builds.begin("p", build(2, "p")).unwrap();
        assert_eq!(builds.list().unwrap().len(), 2);
        assert_eq!(builds.last().unwrap().unwrap().id, "00000001");
        assert_eq!(builds.last_of("p").unwrap().unwrap().id, "00000001");
        let ended = |id| builds.has_ended(id).unwrap();
        assert!(ended("00000001") && !ended("00000002") && !ended("00000003"));
        builds.put("p", BuildRecord { succeeded: true, ..build(2, "p") }).unwrap();
        let last = builds.last_of("p").unwrap().unwrap();
        assert!(last.succeeded && last.id == "00000002" && builds.list().unwrap().len() == 2);
    }
}
