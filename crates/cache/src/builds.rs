//! What the last build of each project did: what the next one is explained by.
//!
//! A project is any text that stays the same from build to build; the newest ones are kept. The
//! inputs of steps are not repeated here: they are in the records of the keys.

use rbuild_types::{Digest, Reason};
use rusqlite::{OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};

use crate::error::CacheError;
use crate::index::Durability;
use crate::store::Store;
use crate::{body, file};

/// Projects that are remembered.
const MAX_PROJECTS: i64 = 500;

/// One build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// What was built, for people: where the Dockerfile is.
    pub title: String,
    /// Milliseconds since 1970 when it ended.
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
            let sql = "SELECT body FROM builds WHERE project = ?1";
            index.prepare_cached(sql)?.query_row([project], decode).optional()
        })?;
        Ok(found.flatten())
    }

    /// The last build of all.
    ///
    /// # Errors
    ///
    /// As [`Builds::last_of`].
    pub fn last(&self) -> Result<Option<BuildRecord>, CacheError> {
        let found = self.store.index().read(|index| {
            let sql = "SELECT body FROM builds ORDER BY at DESC LIMIT 1";
            index.prepare_cached(sql)?.query_row([], decode).optional()
        })?;
        Ok(found.flatten())
    }

    /// Remembers a build in the place of the project's last one; its end is now.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn put(&self, project: &str, build: BuildRecord) -> Result<(), CacheError> {
        let build = BuildRecord { ended: file::now_ms(), ..build };
        let encoded = body::encode(&build)
            .map_err(std::io::Error::from)
            .map_err(|error| CacheError::io("encode", project.as_ref(), error))?;
        self.store.index().write(Durability::Lazy, |index| {
            let sql = "UPDATE builds SET at = ?2, body = ?3 WHERE project = ?1";
            let row = (project, build.ended, &encoded);
            if index.prepare_cached(sql)?.execute(row)? > 0 {
                return Ok(());
            }
            let sql = "INSERT INTO builds(project, at, body) VALUES (?1, ?2, ?3)";
            index.prepare_cached(sql)?.execute(row)?;
            let sql = "DELETE FROM builds WHERE project IN
                       (SELECT project FROM builds ORDER BY at DESC LIMIT -1 OFFSET ?1)";
            index.prepare_cached(sql)?.execute([MAX_PROJECTS]).map(drop)
        })
    }
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Option<BuildRecord>> {
    Ok(row.get_ref(0)?.as_blob().ok().and_then(body::decode))
}
