//! Where builds take files from: the build context and those that go by a name.

use std::fmt;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_plan::git_ref::GitRef;
use rbuild_plan::{GitAddress, GitWay};
use rbuild_types::Digest;

use crate::BuildError;

/// Where COPY and ADD take files from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextInput {
    /// A directory.
    Directory(PathBuf),
    /// A tar, plain or compressed. No ignore file of it counts, owners in it are kept, and the
    /// Dockerfile is looked for in it.
    Archive(ContextArchive),
    /// A git repository, by its URL with what of it is meant. No ignore file of it counts, and
    /// the Dockerfile is looked for in it.
    Git(String),
    /// A URL of a tar, which is then as an archive, or of a Dockerfile that needs no context.
    Http(String),
    /// Nothing: the Dockerfile copies from stages and images only.
    None,
}

impl ContextInput {
    /// What a path or URL on a command line means. `github.com/owner/repository` is a repository:
    /// whoever has a directory of that name looks first.
    pub fn of(text: &str) -> Self {
        match remote(text) {
            Some(Remote::Git) => Self::Git(text.to_owned()),
            Some(Remote::Http) => Self::Http(text.to_owned()),
            None => Self::Directory(text.into()),
        }
    }
}

impl ContextInput {
    /// Whether it is a repository on an SSH server, which asks for keys.
    pub fn needs_ssh(&self) -> bool {
        let Self::Git(url) = self else { return false };
        let Ok(Some(git)) = GitRef::parse(url) else { return false };
        let address = GitAddress::parse(&git.remote);
        matches!(address, Ok(Some(GitAddress { way: GitWay::Ssh { .. }, .. })))
    }
}

/// What a name of [`crate::BuildRequest::contexts`] stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamedContextInput {
    /// A directory, with an ignore file of its own at its root.
    Directory(PathBuf),
    /// An image, or `scratch`.
    Image(String),
    /// An image in an OCI layout.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// The image's tag; without tag and digest it is `latest`, or the only one.
        tag: Option<String>,
        /// The image's digest.
        digest: Option<Digest>,
    },
    /// A git repository, by its URL with what of it is meant.
    Git(String),
    /// A URL; its content is a file with the name `context`, as in BuildKit.
    Http(String),
    /// A target of a bake file; refused.
    Target(String),
}

impl NamedContextInput {
    /// Reads the `VALUE` of `--build-context name=VALUE`.
    ///
    /// # Errors
    ///
    /// [`BuildError::Request`] for a kind that nobody knows, and a layout's name with a bad digest.
    pub fn parse(text: &str) -> Result<Self, BuildError> {
        let bad = |message: String| BuildError::Request { message };
        if let Some(image) = text.strip_prefix("docker-image://") {
            return Ok(Self::Image(image.to_owned()));
        }
        if let Some(place) = text.strip_prefix("oci-layout://") {
            let (place, digest) = match place.rsplit_once('@') {
                // A directory may be called `name@1`.
                Some((place, digest)) if digest.contains(':') => {
                    let digest = digest
                        .parse()
                        .map_err(|_| bad(format!("{text}: {digest} is not a digest")))?;
                    (place, Some(digest))
                }
                _ => (place, None),
            };
            let (path, tag) = match place.rsplit_once(':') {
                Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => {
                    (path, Some(tag.to_owned()))
                }
                _ => (place, None),
            };
            return Ok(Self::OciLayout { path: path.into(), tag, digest });
        }
        if let Some(target) = text.strip_prefix("target:") {
            return Ok(Self::Target(target.to_owned()));
        }
        match remote(text) {
            Some(Remote::Git) => return Ok(Self::Git(text.to_owned())),
            Some(Remote::Http) => return Ok(Self::Http(text.to_owned())),
            None => {}
        }
        match text.split_once("://") {
            Some((scheme, _))
                if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') =>
            {
                Err(bad(format!(
                    "build contexts of the kind {scheme}:// are not known: give a directory, a URL, \
                     docker-image://NAME or oci-layout://PATH"
                )))
            }
            _ => Ok(Self::Directory(text.into())),
        }
    }
}

enum Remote {
    Git,
    Http,
}

fn remote(text: &str) -> Option<Remote> {
    match GitRef::parse(text) {
        // An error is one too: what is wrong with its name is said when it is opened.
        Ok(Some(_)) | Err(_) => Some(Remote::Git),
        Ok(None) => {
            let http = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
            http.then_some(Remote::Http)
        }
    }
}

/// A tar that is read once: that of a request that was built cannot be built again.
#[derive(Clone)]
pub struct ContextArchive(Arc<Mutex<Option<Stream>>>);

type Stream = Box<dyn Read + Send>;

/// What came from a stream.
#[derive(Debug)]
pub enum Sniffed {
    /// A tar, plain or compressed with gzip, bzip2, xz or zstd.
    Archive(ContextArchive),
    /// Anything else: its bytes, as far as they were allowed for.
    Bytes(Vec<u8>),
}

/// Bytes that are looked at to find the first header of an archive: bzip2 gives nothing before
/// it has a block of up to 900 kB.
const SNIFF: u64 = 2 << 20;

impl ContextArchive {
    /// What `reader` holds is taken for a tar.
    pub fn new(reader: impl Read + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(reader)))))
    }

    /// Tells an archive from a text by its first bytes. Of anything but an archive at most `limit`
    /// bytes are read, and one more where there are more.
    ///
    /// # Errors
    ///
    /// When reading fails.
    pub fn sniff(mut reader: impl Read + Send + 'static, limit: u64) -> std::io::Result<Sniffed> {
        let mut head = Vec::new();
        reader.by_ref().take(SNIFF).read_to_end(&mut head)?;
        if rbuild_image::layer::is_archive(head.as_slice()) {
            return Ok(Sniffed::Archive(Self::new(Cursor::new(head).chain(reader))));
        }
        let read = head.len() as u64;
        if read <= limit {
            reader.take(limit + 1 - read).read_to_end(&mut head)?;
        }
        Ok(Sniffed::Bytes(head))
    }

    pub(crate) fn take(&self) -> Option<Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for ContextArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextArchive")
    }
}

impl PartialEq for ContextArchive {
    /// Whether both are the same stream.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ContextArchive {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(text: &str) -> NamedContextInput {
        NamedContextInput::parse(text).unwrap()
    }

    #[test]
    fn values_of_build_context_are_told_apart() {
        assert_eq!(named("../x:y"), NamedContextInput::Directory("../x:y".into()));
        assert_eq!(named("docker-image://a:1"), NamedContextInput::Image("a:1".to_owned()));
        assert_eq!(named("target:a"), NamedContextInput::Target("a".to_owned()));
        for git in ["https://h/x.git#main:sub", "git@h:x", "ssh://h/x", "git://h/x"] {
            assert_eq!(named(git), NamedContextInput::Git(git.to_owned()));
        }
        let tar = "https://h/x.tar.gz";
        assert_eq!(named(tar), NamedContextInput::Http(tar.to_owned()));
        assert_eq!(ContextInput::of("me@h:x"), ContextInput::Git("me@h:x".to_owned()));
        assert_eq!(ContextInput::of("github.com/o"), ContextInput::Git("github.com/o".to_owned()));
        // A directory may be called so.
        assert_eq!(named("x.git"), NamedContextInput::Directory("x.git".into()));
        let error = NamedContextInput::parse("ftp://h/x").unwrap_err().to_string();
        assert!(error.contains("ftp://"), "{error}");
    }

    #[test]
    fn a_layout_has_a_tag_or_a_digest() {
        let layout = |text: &str| match named(text) {
            NamedContextInput::OciLayout { path, tag, digest } => {
                (path.display().to_string(), tag, digest)
            }
            other => panic!("{other:?}"),
        };
        let digest = Digest::of("");
        assert_eq!(layout("oci-layout://a/b"), ("a/b".to_owned(), None, None));
        let tagged = ("/a/b".to_owned(), Some("1".to_owned()), None);
        assert_eq!(layout("oci-layout:///a/b:1"), tagged);
        assert_eq!(layout("oci-layout://a@1"), ("a@1".to_owned(), None, None));
        assert_eq!(layout("oci-layout:///a:1/b"), ("/a:1/b".to_owned(), None, None));
        let whole = ("b".to_owned(), Some("1".to_owned()), Some(digest));
        assert_eq!(layout(&format!("oci-layout://b:1@{digest}")), whole);
        assert!(NamedContextInput::parse("oci-layout://b@sha256:1").is_err());
    }

    #[test]
    fn archives_are_told_from_text() {
        let sniff = |bytes: &'static [u8]| ContextArchive::sniff(bytes, 10).unwrap();
        match sniff(b"FROM scratch\nCOPY a b\n") {
            Sniffed::Bytes(bytes) => assert!(bytes.starts_with(b"FROM scratch")),
            other => panic!("{other:?}"),
        }
        assert!(matches!(sniff(b""), Sniffed::Bytes(bytes) if bytes.is_empty()));
        assert!(matches!(sniff(b"\x1f\x8bno gzip"), Sniffed::Bytes(_)));
    }

    /// Bytes that begin as those of a compressed file, so that decoders see them too.
    fn beginnings() -> impl Strategy<Value = Vec<u8>> {
        let magic = prop::sample::select(vec![
            &b""[..],
            b"\x1f\x8b\x08\x00",
            b"BZh9",
            b"\xfd7zXZ\x00",
            b"\x28\xb5\x2f\xfd",
            b"\x5d\x00\x00\x80\x00",
        ]);
        let rest = prop::collection::vec(any::<u8>(), 0..1500);
        (magic, rest).prop_map(|(magic, rest)| [magic, &rest].concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_told_apart_without_panic(bytes in beginnings(), limit in 0_u64..2000) {
            match ContextArchive::sniff(Cursor::new(bytes.clone()), limit).unwrap() {
                Sniffed::Bytes(found) => prop_assert_eq!(found, bytes),
                Sniffed::Archive(archive) => {
                    let mut whole = Vec::new();
                    archive.take().unwrap().read_to_end(&mut whole).unwrap();
                    prop_assert_eq!(whole, bytes);
                    prop_assert!(archive.take().is_none());
                }
            }
        }
    }
}
