//! References to git repositories, in BuildKit's grammar.
//!
//! A repository is `git@host:path`, `ssh://…`, `git://…`, or an `http(s)://` URL whose path ends
//! in `.git`. What of it is meant follows as a fragment, `#ref:directory`, or as a query:
//! `?ref=`, `tag=`, `branch=`, `subdir=`, `checksum=` (or `commit=`), `keep-git-dir`,
//! `submodules=`, `mtime=`, `fetch-by-commit`.
//!
//! Facts from `frontend/dockerfile/dfgitutil` and `util/gitutil` of BuildKit 73ed682.

use serde::{Deserialize, Serialize};

use crate::url::{self, Url};

/// Which times the files of a checkout get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckoutTime {
    /// The time of the checkout.
    #[default]
    Checkout,
    /// The commit's.
    Commit,
}

/// A repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitRef {
    /// URL of the repository, or `user@host:path`.
    pub remote: String,
    /// Last part of its path, without `.git`.
    pub short_name: String,
    /// Commit, tag or branch; empty for the remote's default branch.
    pub reference: String,
    /// A commit's hash, or its beginning.
    pub checksum: Option<String>,
    /// Directory in the repository; empty for all of it.
    pub subdir: String,
    /// `github.com/…`: may as well be a local path.
    pub may_be_local: bool,
    /// Whether the way to it is not encrypted.
    pub unencrypted: bool,
    /// `keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `submodules`.
    pub submodules: Option<bool>,
    /// `mtime`.
    pub mtime: Option<CheckoutTime>,
    /// `fetch-by-commit`: the checksum is fetched without asking what the reference is.
    pub fetch_by_commit: bool,
}

/// What a text is.
type Found = Result<Option<GitRef>, String>;

impl GitRef {
    /// Reads `text`; `None` when it names no git repository.
    ///
    /// # Errors
    ///
    /// It does, and what follows the repository cannot be: BuildKit's words.
    pub fn parse(text: &str) -> Found {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        if text.starts_with("github.com/") {
            return of_github(text);
        }
        match text.split_once("://") {
            Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                of_url(text)
            }
            _ => of_scp(text),
        }
    }

    fn new(remote: String, query: Option<&str>, fragment: &str) -> Found {
        let last = remote.rsplit('/').next().unwrap_or_default();
        let short_name = last.strip_suffix(".git").unwrap_or(last).to_owned();
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let subdir = match subdir {
            "" => String::new(),
            subdir => crate::lower::path::clean(subdir).trim_start_matches('/').to_owned(),
        };
        let reference = reference.to_owned();
        let mut found = Self { remote, short_name, reference, subdir, ..Self::default() };
        found.take_query(query.unwrap_or_default())?;
        check_reference(&found.reference)?;
        Ok(Some(found))
    }

    fn take_query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in url::query_pairs(query) {
            if seen.contains(&key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            let is_switch = matches!(&*key, "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_switch {
                return Err(format!("query {key:?} has no value"));
            }
            match key.as_str() {
                "ref" => self.refer_to(value)?,
                "tag" => tag = Some(qualified("refs/tags/", &value)),
                "branch" => branch = Some(qualified("refs/heads/", &value)),
                "subdir" if !self.subdir.is_empty() && self.subdir != value => {
                    return Err(format!("subdir conflicts: {:?} vs {value:?}", self.subdir));
                }
                "subdir" => self.subdir = value,
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(switch(&key, &value)?),
                "submodules" => self.submodules = Some(switch(&key, &value)?),
                "fetch-by-commit" => self.fetch_by_commit = switch(&key, &value)?,
                "mtime" => {
                    self.mtime = Some(match value.as_str() {
                        "checkout" => CheckoutTime::Checkout,
                        "commit" => CheckoutTime::Commit,
                        _ => {
                            return Err(format!(
                                "invalid mtime value: {value:?} (must be \"checkout\" or \
                                 \"commit\")"
                            ));
                        }
                    });
                }
                _ => return Err(format!("unexpected query {key:?}")),
            }
            seen.push(key);
        }
        let both = tag.is_some() && branch.is_some();
        if let Some(tag) = tag {
            self.refer_to(tag)?;
        }
        match branch {
            Some(_) if both => Err("branch conflicts with tag".to_owned()),
            Some(branch) => self.refer_to(branch),
            None => Ok(()),
        }
    }

    fn refer_to(&mut self, reference: String) -> Result<(), String> {
        if !self.reference.is_empty() && self.reference != reference {
            return Err(format!("ref conflicts: {:?} vs {reference:?}", self.reference));
        }
        self.reference = reference;
        Ok(())
    }
}

fn of_github(text: &str) -> Found {
    let with_scheme = format!("https://{text}");
    let Some(url) = Url::parse(&with_scheme) else { return Ok(None) };
    let remote = format!("{}{}", url.authority, url.path);
    let found = GitRef::new(remote, url.query, &url.fragment)?;
    Ok(found.map(|found| GitRef { may_be_local: true, ..found }))
}

fn of_url(text: &str) -> Found {
    let Some(url) = Url::parse(text) else { return Ok(None) };
    let unencrypted = match url.scheme.as_str() {
        "http" | "https" if !url.path.ends_with(".git") => return Ok(None),
        "http" | "git" => true,
        "https" | "ssh" => false,
        _ => return Ok(None),
    };
    let remote = format!("{}://{}{}", url.scheme, url.authority, url.path);
    let found = GitRef::new(remote, url.query, &url.fragment)?;
    Ok(found.map(|found| GitRef { unencrypted, ..found }))
}

/// `user@host:path`, the form that scp has.
fn of_scp(text: &str) -> Found {
    let word = |text: &str, more: &str| {
        !text.is_empty()
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
    };
    let parts = text.split_once('@').and_then(|(user, rest)| {
        let (host, path) = rest.split_once(':')?;
        (word(user, "-_") && word(host, "-.") && !path.contains('\n')).then_some((user, host, path))
    });
    let Some((user, host, path)) = parts else { return Ok(None) };
    let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    GitRef::new(format!("{user}@{host}:{path}"), query, fragment)
}

fn qualified(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// A switch of a query; without a value it is on.
fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: {value:?}")),
    }
}

/// What git allows in no name of a reference, and what would be an option of a command.
fn check_reference(reference: &str) -> Result<(), String> {
    let strange = |letter: char| letter.is_control() || letter.is_whitespace();
    if reference.starts_with('-') || reference.contains(strange) {
        return Err(format!("invalid git ref {reference:?}"));
    }
    Ok(())
}
