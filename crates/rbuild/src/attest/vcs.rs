//! What a directory is a checkout of, as its `.git` says. Nobody has verified it: it is a hint for
//! people, as in BuildKit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_plan::without_users;

/// Bytes of a file of git that are looked at.
const MOST: u64 = 1 << 20;

/// `revision` and `source`, as far as they can be found.
pub(super) fn of(directory: &Path) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    let Ok(directory) = fs_err::canonicalize(directory) else { return found };
    let Some(git) = directory.ancestors().find_map(git_dir) else { return found };
    // A worktree of its own shares all but its HEAD.
    let common = read(&git.join("commondir")).map(|path| git.join(path.trim()));
    let common = common.unwrap_or_else(|| git.clone());
    found.extend(head(&git, &common).map(|commit| ("revision", commit)));
    let config = read(&common.join("config")).unwrap_or_default();
    found.extend(origin(&config).map(|url| ("source", without_users(&url))));
    found
}

/// The `.git` of a directory: one itself, or a file that names it.
fn git_dir(directory: &Path) -> Option<PathBuf> {
    let path = directory.join(".git");
    if path.is_dir() {
        return Some(path);
    }
    let text = read(&path)?;
    Some(directory.join(text.strip_prefix("gitdir:")?.trim()))
}

/// The commit that is checked out.
fn head(git: &Path, common: &Path) -> Option<String> {
    let head = read(&git.join("HEAD"))?;
    let commit = match head.trim().strip_prefix("ref: ") {
        None => head.trim().to_owned(),
        Some(name) => {
            // Names of references have no `..` in them.
            let name =
                Some(name).filter(|name| name.starts_with("refs/") && !name.contains(".."))?;
            let loose = read(&common.join(name)).map(|text| text.trim().to_owned());
            let packed = || packed(&read(&common.join("packed-refs"))?, name);
            loose.or_else(packed)?
        }
    };
    let is_commit = matches!(commit.len(), 40 | 64) && hex::decode(&commit).is_ok();
    is_commit.then_some(commit)
}

fn packed(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, known)| *known == name).map(|(commit, _)| commit.to_owned())
}

/// The URL of the remote `origin`.
fn origin(config: &str) -> Option<String> {
    let mut lines = config.lines().map(str::trim);
    lines.find(|line| *line == "[remote \"origin\"]")?;
    let mut fields = lines.take_while(|line| !line.starts_with('['));
    fields.find_map(|line| {
        Some(line.strip_prefix("url")?.trim().strip_prefix('=')?.trim().to_owned())
    })
}

fn read(path: &Path) -> Option<String> {
    let metadata = fs_err::metadata(path).ok()?;
    let is_small = metadata.is_file() && metadata.len() <= MOST;
    is_small.then(|| fs_err::read_to_string(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_says_what_it_is_of() {
        let directory = tempfile::tempdir().unwrap();
        let git = directory.path().join(".git");
        let write = |name: &str, text: &str| {
            fs_err::create_dir_all(git.join(name).parent().unwrap()).unwrap();
            fs_err::write(git.join(name), text).unwrap();
        };
        let commit = "a".repeat(40);
        write("HEAD", "ref: refs/heads/main\n");
        write("packed-refs", &format!("# pack-refs\n{commit} refs/heads/main\n"));
        write("config", "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://me:pw@h/r\n");
        let inner = directory.path().join("inner");
        fs_err::create_dir(&inner).unwrap();
        let expected = [("revision", commit.clone()), ("source", "https://h/r".to_owned())];
        assert_eq!(of(&inner), BTreeMap::from(expected));
        let newer = "b".repeat(40);
        write("refs/heads/main", &newer);
        assert_eq!(of(&inner)["revision"], newer);
        write("HEAD", "ref: refs/../config");
        assert!(!of(&inner).contains_key("revision"));
    }
}
