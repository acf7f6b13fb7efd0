//! Output of steps: `logs/<build>/<step>.log`.
//!
//! A record names the log of the step that it came from. What no record names is of a step that
//! failed, or of one whose record went; it stays as long as the lease of its build, or until the
//! next prune. Beside the files of a failure there is a second link to its log.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::error::CacheError;
use crate::file;
use crate::lease::Protected;
use crate::store::Store;

/// The logs, and directories of logs, that nobody needs. `named` are paths below `logs/`.
pub(crate) fn nameless(
    store: &Store,
    named: &HashSet<&str>,
    protected: &Protected,
) -> Result<Vec<PathBuf>, CacheError> {
    let logs = store.root().join("logs");
    let mut found = Vec::new();
    for build in file::names(&logs)? {
        if protected.logs.contains(&build) {
            continue;
        }
        let directory = logs.join(&build);
        let names = file::names(&directory).unwrap_or_default();
        let (keep, go): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| named.contains(format!("{build}/{name}").as_str()));
        match keep.is_empty() {
            true => found.push(directory),
            false => found.extend(go.into_iter().map(|name| directory.join(name))),
        }
    }
    Ok(found)
}
