//! What to say of a source that is not found: the rule that hides it, or a name that is near.

use std::path::{Path, PathBuf};

use rbuild_parser::suggest;
use rbuild_rooted::FileKind;

use super::error::IgnoredBy;
use super::pattern::names;
use super::walk::Walker;

/// A directory with more names than this is not searched for a near one.
const MAX_NAMES: usize = 10_000;

impl Walker<'_> {
    /// The rule of the ignore file that leaves out one of these paths.
    pub(crate) fn ignored_by(&self, paths: &[&Path]) -> Option<IgnoredBy> {
        let ignore = self.filter.ignore?;
        paths.iter().find_map(|path| {
            let path = path.strip_prefix("/").unwrap_or(path);
            let verdict = ignore.matches(&path.to_string_lossy());
            let rule = ignore.rule(verdict.rule.filter(|_| verdict.excluded)?)?;
            Some(IgnoredBy {
                file: self.tree.ignore_file.to_owned(),
                line: rule.line,
                rule: rule.text.to_owned(),
            })
        })
    }

    /// The path that was perhaps meant: the first name of `path` that is not there is replaced
    /// by the nearest visible one of its directory. What cannot be looked at helps nobody.
    pub(crate) fn near(&self, path: &str) -> Option<String> {
        let words = names(path);
        let mut directory = PathBuf::from("/");
        for (index, word) in words.iter().enumerate() {
            let next = directory.join(word);
            match self.follow(&next).ok()? {
                Some((real, FileKind::Directory)) => directory = real,
                Some(_) => return None,
                None => {
                    let near = self.near_name(&directory, word)?;
                    let mut meant = words.clone();
                    *meant.get_mut(index)? = &near;
                    let whole = format!("/{}", meant.join("/"));
                    let known = meant.get(..=index)?.join("/");
                    return Some(match self.follow(Path::new(&whole)) {
                        Ok(Some(_)) => whole,
                        _ => format!("/{known}"),
                    });
                }
            }
        }
        None
    }

    fn near_name(&self, directory: &Path, word: &str) -> Option<String> {
        let listed = self.root.open_real_dir(directory).ok()?.read_dir("").ok()?;
        let is_visible =
            |name: &&str| self.filter.judge(&directory.join(name), Path::new("")).visible;
        let names: Vec<&str> = listed
            .iter()
            .take(MAX_NAMES)
            .filter_map(|entry| entry.name.to_str())
            .filter(is_visible)
            .collect();
        let same = names.iter().find(|name| name.to_lowercase() == word.to_lowercase());
        same.copied().or_else(|| suggest(word, names.iter().copied())).map(str::to_owned)
    }
}
