//! Sources of `ADD` that lie elsewhere: URLs and git repositories.

use rbuild_parser::ast::CopyFlags;
use rbuild_types::Digest;

use crate::git_ref::GitRef;
use crate::op::{Git, Http, Source};
use crate::url::{Url, without_passwords};

/// Name of a file whose URL has none.
const UNNAMED: &str = "__unnamed__";

/// A source that is no path.
pub(super) enum Remote {
    Git(GitRef),
    Http { url: String, name: String },
}

/// What a remote source becomes in the plan.
pub(super) struct Fetched {
    pub(super) source: Source,
    /// As shown.
    pub(super) name: String,
    /// Path in its tree of what is copied.
    pub(super) path: String,
}

/// What a source is; `None` for a path.
pub(super) fn parse(word: &str) -> Result<Option<Remote>, String> {
    if let Some(git) = GitRef::parse(word)?.filter(|git| !git.may_be_local) {
        return Ok(Some(Remote::Git(git)));
    }
    if !word.starts_with("http://") && !word.starts_with("https://") {
        return Ok(None);
    }
    let shown = without_passwords(word);
    let url = Url::parse(word).filter(|url| !url.authority.is_empty());
    let url = url.ok_or_else(|| format!("invalid URL {shown:?}"))?;
    let name = url.file_name().unwrap_or_else(|| UNNAMED.to_owned());
    if matches!(name.as_str(), "." | "..") || name.contains(char::is_control) {
        return Err(format!(
            "URL {shown:?} ends with {name:?}, which cannot be the name of a file"
        ));
    }
    Ok(Some(Remote::Http { url: word.to_owned(), name }))
}

/// The source's op, after a look at the flags that are about it.
pub(super) fn source(
    remote: &Remote,
    checksum: Option<&str>,
    flags: &CopyFlags,
) -> Result<Fetched, String> {
    match remote {
        Remote::Http { url, name } => {
            let path = format!("/{}", escaped(name));
            let checksum = checksum.map(content_digest).transpose()?;
            let source = Source::Http(Http { url: url.clone(), name: name.clone(), checksum });
            Ok(Fetched { source, name: without_passwords(url), path })
        }
        Remote::Git(git) => {
            let source = Source::Git(checkout(git, checksum, flags)?);
            let mut name = without_passwords(&git.remote);
            if !git.reference.is_empty() {
                name.push_str(&format!("#{}", git.reference));
            }
            Ok(Fetched { source, name, path: "/".to_owned() })
        }
    }
}

fn checkout(git: &GitRef, flag: Option<&str>, flags: &CopyFlags) -> Result<Git, String> {
    let keep_flag = flags.keep_git_dir.as_ref().map(|flag| flag.value);
    if keep_flag.is_some_and(|flag| git.keep_git_dir.is_some_and(|query| query != flag)) {
        return Err("inconsistent keep-git-dir configuration".to_owned());
    }
    if let (Some(flag), Some(query)) = (flag, &git.checksum)
        && flag != query
    {
        return Err(format!("checksum mismatch {flag:?} != {query:?}"));
    }
    let checksum = git.checksum.as_deref().or(flag).map(str::to_owned);
    if let Some(checksum) = &checksum
        && !checksum.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err(format!("invalid checksum {checksum} for Git URL, expected hex commit hash"));
    }
    if let Some(checksum) = &checksum
        && is_commit(&git.reference)
        && !git.reference.starts_with(checksum.as_str())
    {
        return Err(format!("expected checksum to match {checksum}, got {}", git.reference));
    }
    if git.fetch_by_commit && !is_commit(&git.reference) {
        match &checksum {
            None => {
                let message = "fetch-by-commit requires a checksum or a commit SHA ref";
                return Err(message.to_owned());
            }
            Some(checksum) if !is_commit(checksum) => {
                return Err(format!(
                    "fetch-by-commit requires a full commit SHA checksum, got {checksum:?}"
                ));
            }
            Some(_) => {}
        }
    }
    if !git.remote.starts_with("http://") && !git.remote.starts_with("https://") {
        let scheme = git.remote.split_once("://").map_or("ssh", |(scheme, _)| scheme);
        return Err(format!(
            "ADD of a git repository over {scheme}:// is not supported yet; use its https:// URL"
        ));
    }
    Ok(Git {
        remote: git.remote.clone(),
        reference: git.reference.clone(),
        checksum,
        subdir: crate::lower::path::clean(&git.subdir).trim_start_matches('/').to_owned(),
        keep_git_dir: git.keep_git_dir.or(keep_flag).unwrap_or(false),
        submodules: git.submodules.unwrap_or(true),
        mtime: git.mtime.unwrap_or_default(),
        fetch_by_commit: git.fetch_by_commit,
    })
}

/// Whether a text is the whole hash of a commit, SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    matches!(text.len(), 40 | 64) && text.bytes().all(hex)
}

fn content_digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|error| format!("invalid checksum {text:?}: {error}"))
}

/// A name as a pattern that fits nothing else.
fn escaped(name: &str) -> String {
    let mut pattern = String::new();
    for letter in name.chars() {
        if matches!(letter, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_apart() {
        let kind = |word: &str| match parse(word).unwrap() {
            None => "path".to_owned(),
            Some(Remote::Git(git)) => format!("git {}", git.remote),
            Some(Remote::Http { name, .. }) => format!("file {name}"),
        };
        for (word, expected) in [
            ("github.com/o/r", "path"),
            ("a@b", "path"),
            ("HTTP://h/x", "path"),
            ("https://h/x.git#main", "git https://h/x.git"),
            ("git@h:x", "git git@h:x"),
            ("https://h/x.git/", "file x.git"),
            ("https://h/x?y.git", "file x"),
            ("http://h", "file __unnamed__"),
        ] {
            assert_eq!(kind(word), expected, "{word}");
        }
        for bad in ["http://h/..", "http://h/%0a", "http://h/%", "https://", "https://h/x.git?q=1"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(escaped("a*b\\[?]"), "a\\*b\\\\\\[\\?]");
    }
}
