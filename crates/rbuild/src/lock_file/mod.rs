//! `rbuild.lock`: what the references of a Dockerfile stood for, kept beside it for people to
//! review and for builds to hold on to.
//!
//! [`make`] asks every registry and server and writes the file; [`document`] is its text. A locked
//! build ([`crate::BuildRequest::locked`]) reads it into a [`Lock`], and the image source and the
//! remote sources ask that in the place of servers, where a reference does not name its content by
//! itself. Content is still verified against what it says. Keys know nothing of it: they are made
//! of the content.

mod document;
mod make;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rbuild_plan::{without_passwords, without_users};
use rbuild_types::{Digest, Platform, Reference};

pub use self::make::{LockChange, Locked};
use crate::sources::dockerfile::read_regular;
use crate::sources::git::Resolved;
use crate::{BuildRequest, ContextInput, DockerfileInput};

/// The name beside a Dockerfile with a usual name; beside others it follows theirs and a dot.
const NAME: &str = "rbuild.lock";

/// Dockerfiles whose names are usual.
const USUAL: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// Why a lock file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// It is not there.
    #[error("there is no {}: `{command}` writes it", path.display())]
    NoFile {
        /// Where it would be.
        path: PathBuf,
        /// What writes it.
        command: String,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is damaged, or of another version.
    #[error("{} cannot be used: {problem}; `{command}` writes it anew", path.display())]
    Text {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What writes it.
        command: String,
    },
    /// The Dockerfile is no file of the host.
    #[error("{} lies beside the Dockerfile, and that is no file here: name one with -f", NAME)]
    NoPlace,
    /// A reference is not in it.
    #[error("{subject} is not in {}: `{command}` writes it anew", path.display())]
    Missing {
        /// The reference.
        subject: String,
        /// The lock file.
        path: PathBuf,
        /// What writes it.
        command: String,
    },
    /// A registry does not have what was locked, and neither does the store.
    #[error(
        "its registry does not have {subject}, which {} names: `{command}` writes it anew",
        path.display()
    )]
    Gone {
        /// The image by its digest.
        subject: String,
        /// The lock file.
        path: PathBuf,
        /// What writes it.
        command: String,
    },
    /// A server gives something else by now, and the store does not have what was locked.
    #[error("{change}, which {} names: `{command}` writes it anew", path.display())]
    Drift {
        /// What stands for what now, and for what no longer.
        change: String,
        /// The lock file.
        path: PathBuf,
        /// What writes it.
        command: String,
    },
}

/// What references stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Entries {
    /// Manifests, by the full reference and the platform that is asked for.
    images: BTreeMap<(String, String), Digest>,
    /// Contents, by the URL without a user.
    urls: BTreeMap<String, Digest>,
    /// By the repository's URL without a user, and the reference.
    repositories: BTreeMap<(String, String), Resolved>,
}

/// The lock file of one build.
#[derive(Debug)]
pub(crate) struct Lock {
    entries: Entries,
    path: PathBuf,
    command: String,
}

impl Lock {
    /// Reads the lock file that a request asks for, if it does.
    pub(crate) fn of(request: &BuildRequest) -> Result<Option<Self>, LockError> {
        if !request.locked {
            return Ok(None);
        }
        let (path, command) = (place(request)?, command(request));
        match read(&path)? {
            None => Err(LockError::NoFile { path, command }),
            Some(text) => match document::parse(&text) {
                Ok(entries) => Ok(Some(Self { entries, path, command })),
                Err(problem) => Err(LockError::Text { path, problem, command }),
            },
        }
    }

    /// The manifest of an image.
    pub(crate) fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Digest, LockError> {
        let key = (reference.to_string(), platform.to_string());
        let found = self.entries.images.get(&key).copied();
        found.ok_or_else(|| self.missing(format!("{} for {platform}", reference.familiar())))
    }

    /// The content of a URL, if it is there.
    pub(crate) fn find_url(&self, url: &str) -> Option<Digest> {
        self.entries.urls.get(&without_users(url)).copied()
    }

    /// The content of a URL.
    pub(crate) fn url(&self, url: &str) -> Result<Digest, LockError> {
        self.find_url(url).ok_or_else(|| self.missing(without_users(url)))
    }

    /// What a reference of a git repository stands for.
    pub(crate) fn repository(&self, remote: &str, reference: &str) -> Result<Resolved, LockError> {
        let key = (without_users(remote), reference.to_owned());
        let found = self.entries.repositories.get(&key).cloned();
        found.ok_or_else(|| self.missing(repository_shown(&key)))
    }

    fn missing(&self, subject: String) -> LockError {
        LockError::Missing { subject, path: self.path.clone(), command: self.command.clone() }
    }

    /// A registry does not have an image of the lock.
    pub(crate) fn gone(&self, reference: &Reference) -> LockError {
        let (path, command) = (self.path.clone(), self.command.clone());
        LockError::Gone { subject: reference.familiar(), path, command }
    }

    /// A URL has another content by now.
    pub(crate) fn drift(&self, subject: &str, found: Digest, locked: Digest) -> LockError {
        let change = format!("{subject} is {found} and no longer {locked}");
        LockError::Drift { change, path: self.path.clone(), command: self.command.clone() }
    }
}

impl Entries {
    /// Each reference in words, and what it stands for.
    fn lines(&self) -> BTreeMap<String, String> {
        let images = self.images.iter();
        let images = images
            .map(|((name, platform), digest)| (format!("{name} {platform}"), digest.to_string()));
        let urls = self.urls.iter().map(|(url, digest)| (url.clone(), digest.to_string()));
        let repositories = self.repositories.iter();
        let repositories =
            repositories.map(|(key, at)| (repository_shown(key), at.commit().to_string()));
        images.chain(urls).chain(repositories).collect()
    }
}

fn repository_shown((remote, reference): &(String, String)) -> String {
    match reference.as_str() {
        "" => remote.clone(),
        reference => format!("{remote}#{reference}"),
    }
}

/// Where the lock file of a request lies.
fn place(request: &BuildRequest) -> Result<PathBuf, LockError> {
    match (&request.dockerfile, &request.context) {
        (DockerfileInput::Default, ContextInput::Directory(directory)) => Ok(directory.join(NAME)),
        (DockerfileInput::Path(path), ContextInput::Directory(_) | ContextInput::None) => {
            Ok(beside(path))
        }
        (DockerfileInput::Path(path), ContextInput::Git(_) | ContextInput::Http(_))
            if path.is_absolute() =>
        {
            Ok(beside(path))
        }
        _ => Err(LockError::NoPlace),
    }
}

fn beside(dockerfile: &Path) -> PathBuf {
    match dockerfile.file_name().and_then(|name| name.to_str()) {
        Some(name) if !USUAL.contains(&name) => dockerfile.with_file_name(format!("{name}.{NAME}")),
        _ => dockerfile.with_file_name(NAME),
    }
}

/// The command that writes the lock file of a request. Build arguments are left out: they may be
/// many.
fn command(request: &BuildRequest) -> String {
    let mut words = vec!["rbuild lock".to_owned()];
    if let DockerfileInput::Path(path) = &request.dockerfile {
        words.push(format!("-f {}", path.display()));
    }
    if !request.options.platforms.is_empty() {
        let platforms: Vec<_> = request.options.platforms.iter().map(Platform::to_string).collect();
        words.push(format!("--platform {}", platforms.join(",")));
    }
    words.push(match &request.context {
        ContextInput::Directory(path) => path.display().to_string(),
        ContextInput::Git(url) | ContextInput::Http(url) => without_passwords(url),
        ContextInput::Archive(_) | ContextInput::None => "-".to_owned(),
    });
    words.join(" ")
}

fn read(path: &Path) -> Result<Option<String>, LockError> {
    match read_regular(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LockError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_beside_the_dockerfile() {
        let of = |request: BuildRequest| place(&request).ok();
        let here = |text: &str| Some(PathBuf::from(text));
        let request = BuildRequest::new("dir");
        assert_eq!(of(request.clone()), here("dir/rbuild.lock"));
        assert_eq!(of(request.clone().dockerfile("a/Containerfile")), here("a/rbuild.lock"));
        let other = here("a/app.Dockerfile.rbuild.lock");
        assert_eq!(of(request.clone().dockerfile("a/app.Dockerfile")), other);
        assert_eq!(of(request.clone().dockerfile_text("FROM scratch")), None);
        let url = BuildRequest { context: ContextInput::Git("https://h/r.git".into()), ..request };
        assert_eq!(of(url.clone()), None);
        assert_eq!(of(url.clone().dockerfile("in/it")), None);
        assert_eq!(of(url.dockerfile("/d/Dockerfile")), here("/d/rbuild.lock"));
    }
}
