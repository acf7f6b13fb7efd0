//! What lies elsewhere: URLs and git repositories, as sources of `ADD` and as contexts.

use rbuild_types::Digest;

use crate::git_address::GitAddress;
use crate::git_ref::{CheckoutTime, GitRef};
use crate::op::{Git, Http, Source};
use crate::url::{Url, without_passwords};

/// Name of a file whose URL has none.
const UNNAMED: &str = "__unnamed__";

/// Name of the file that the URL of a context gave, whatever the URL ends with: BuildKit's.
pub const CONTEXT_FILE: &str = "context";

/// A source that is no path.
pub(crate) enum Remote {
    Git(GitRef),
    Http { url: String, name: String },
}

/// What a remote source becomes in the plan.
pub(crate) struct Fetched {
    pub(crate) source: Source,
    /// As shown.
    pub(crate) name: String,
    /// Path in its tree of what is copied.
    pub(crate) path: String,
}

/// What flags say of a source.
#[derive(Debug, Default)]
pub(crate) struct Flags<'a> {
    /// `--checksum`.
    pub(crate) checksum: Option<&'a str>,
    /// `--keep-git-dir`.
    pub(crate) keep_git_dir: Option<bool>,
}

/// A build context that lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteContext {
    /// Where its files come from. That of a URL has the one file [`CONTEXT_FILE`].
    pub source: Source,
    /// As it may be shown and kept: without passwords.
    pub shown: String,
}

/// What a build asks of a context's repository where its URL does not say.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContextOptions {
    /// Whether `.git` is kept (`BUILDKIT_CONTEXT_KEEP_GIT_DIR`).
    pub keep_git_dir: bool,
    /// Which times files get.
    pub mtime: CheckoutTime,
}

impl RemoteContext {
    /// Reads the name of a context; `None` for a path.
    ///
    /// `github.com/owner/repository` is a repository here, as in docker: whoever means a
    /// directory of that name looks for it first.
    ///
    /// # Errors
    ///
    /// It is no path, and cannot be what it seems: BuildKit's words.
    pub fn parse(text: &str, options: ContextOptions) -> Result<Option<Self>, String> {
        let shown = without_passwords(text);
        if let Some(mut git) = GitRef::parse(text)? {
            if git.may_be_local {
                git.remote.insert_str(0, "https://");
            }
            git.mtime = git.mtime.or(Some(options.mtime));
            let mut checkout = checkout(&git, &Flags::default())?;
            checkout.keep_git_dir |= options.keep_git_dir;
            return Ok(Some(Self { source: Source::Git(checkout), shown }));
        }
        let Some(Remote::Http { url, .. }) = parse(text)? else { return Ok(None) };
        let source = Source::Http(Http { url, name: CONTEXT_FILE.to_owned(), checksum: None });
        Ok(Some(Self { source, shown }))
    }
}

/// What a source of `ADD` is; `None` for a path.
pub(crate) fn parse(word: &str) -> Result<Option<Remote>, String> {
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
pub(crate) fn source(remote: &Remote, flags: &Flags<'_>) -> Result<Fetched, String> {
    match remote {
        Remote::Http { url, name } => {
            let path = format!("/{}", escaped(name));
            let checksum = flags.checksum.map(content_digest).transpose()?;
            let source = Source::Http(Http { url: url.clone(), name: name.clone(), checksum });
            Ok(Fetched { source, name: without_passwords(url), path })
        }
        Remote::Git(git) => {
            let source = Source::Git(checkout(git, flags)?);
            let mut name = without_passwords(&git.remote);
            if !git.reference.is_empty() {
                name.push_str(&format!("#{}", git.reference));
            }
            Ok(Fetched { source, name, path: "/".to_owned() })
        }
    }
}

fn checkout(git: &GitRef, flags: &Flags<'_>) -> Result<Git, String> {
    let keep_flag = flags.keep_git_dir;
    if keep_flag.is_some_and(|flag| git.keep_git_dir.is_some_and(|query| query != flag)) {
        return Err("inconsistent keep-git-dir configuration".to_owned());
    }
    if let (Some(flag), Some(query)) = (flags.checksum, &git.checksum)
        && flag != query
    {
        return Err(format!("checksum mismatch {flag:?} != {query:?}"));
    }
    let checksum = git.checksum.as_deref().or(flags.checksum).map(str::to_owned);
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
    let wrong =
        |problem| format!("invalid git URL {:?}: {problem}", without_passwords(&git.remote));
    GitAddress::parse(&git.remote).map_err(wrong)?;
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

    #[test]
    fn contexts_are_told_apart() {
        let parsed = |text: &str, options| RemoteContext::parse(text, options).unwrap();
        let git = |text: &str, options| match parsed(text, options).unwrap().source {
            Source::Git(git) => git,
            other => panic!("{other:?}"),
        };
        let plain = ContextOptions::default();
        let of_build = ContextOptions { keep_git_dir: true, mtime: CheckoutTime::Commit };
        for path in [".", "x.git", "./github.com/o/r", "HTTP://h/x", "/a:b"] {
            assert_eq!(parsed(path, plain), None, "{path}");
        }
        let short = git("github.com/o/r#main:sub", plain);
        assert_eq!(
            (short.remote.as_str(), short.reference.as_str(), short.subdir.as_str()),
            ("https://github.com/o/r", "main", "sub")
        );
        let long = git("https://u:p@h/r.git?ref=v1&mtime=checkout", of_build);
        assert_eq!((long.keep_git_dir, long.mtime), (true, CheckoutTime::Checkout));
        assert_eq!(git("https://h/r.git", of_build).mtime, CheckoutTime::Commit);
        assert!(git("https://h/r.git?keep-git-dir=1", plain).keep_git_dir);
        assert_eq!(parsed("https://u:p@h/r.git", plain).unwrap().shown, "https://u:xxxxx@h/r.git");
        match parsed("https://h/x.tar.gz?y#z", plain).unwrap().source {
            Source::Http(http) => assert_eq!(http.name, "context"),
            other => panic!("{other:?}"),
        }
        for bad in ["https://h/r.git?q=1", "https://h/r.git#-x", "https://", "http://h/%"] {
            assert!(RemoteContext::parse(bad, plain).is_err(), "{bad}");
        }
    }
}
