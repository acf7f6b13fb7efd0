//! Files behind URLs.
//!
//! What a URL gave is a snapshot with one file, and a record under the URL's key that says what the
//! server called it (`ETag`, `Last-Modified`). Every build asks again, on the condition that it is
//! no longer that; 304 costs no download. Offline it is what it was. With `--checksum` there is
//! nothing to ask: the content is known, and the tree is found by it, from whatever URL it came.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};

use rbuild_cache::{NewSnapshot, SnapshotId, SnapshotMeta, StepRecord, Store};
use rbuild_image::layer::{is_archive, newest_file};
use rbuild_plan::op::{Http, Source};
use rbuild_registry::{BlobSink, Fetch, Fetched, Registry, RegistryError};
use rbuild_rooted::{Follow, Root, Time};
use rbuild_types::{CancelToken, Ctx, Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::remote::{RemoteError, RemoteSources};

/// As BuildKit: others of the image have no business with it unless `--chmod` says so.
const MODE: u32 = 0o600;

/// A time has whole seconds: what was changed so soon before it was sent may be changed again
/// within the same second.
const SETTLED_SECONDS: i64 = 2;

/// What a URL was when it was asked last.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    digest: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl RemoteSources<'_> {
    pub(super) fn identify_http(
        &self,
        source: &Source,
        http: &Http,
        ctx: Ctx<'_>,
    ) -> Result<serde_json::Value, RemoteError> {
        let digest = match http.checksum {
            Some(checksum) => checksum,
            None => {
                let (digest, tree) = self.revalidate(http, ctx)?;
                self.remember(source, tree);
                digest
            }
        };
        self.remember_content(source, digest);
        // The URL is not in it: a mirror with the same bytes is the same source.
        Ok(serde_json::json!({ "source": "http", "name": http.name, "digest": digest }))
    }

    /// Only for a source with a checksum: any other was fetched to be identified.
    pub(super) fn fetch_http(&self, http: &Http, ctx: Ctx<'_>) -> Result<SnapshotId, RemoteError> {
        if let Some(checksum) = http.checksum
            && let Some(tree) = self.store().snapshots().by_chain_id(&tree_id(&checksum, http))?
        {
            return Ok(tree);
        }
        Ok(self.download(http, ctx)?.1)
    }

    /// When the file was changed last, as its server says, or else the newest file in it.
    pub(super) fn time_of_http(
        &self,
        http: &Http,
        ctx: Ctx<'_>,
    ) -> Result<Option<i64>, RemoteError> {
        let (digest, tree) = self.revalidate(http, ctx)?;
        self.check(http, digest)?;
        let known = self.store().records().get(&url_key(http))?;
        let known = known.and_then(|record| serde_json::from_value::<Known>(record.inputs).ok());
        if let Some(time) = known.and_then(|known| http_date(&known.last_modified?)) {
            return Ok(Some(time));
        }
        let root = Root::open(self.store().snapshots().path(&tree).join("fs"))?;
        let open = || root.open_file(&http.name, Follow::No);
        if !is_archive(open()?) {
            return Ok(None);
        }
        newest_file(open()?, ctx.cancel)
            .map_err(|source| RemoteError::Archive { url: shown(http), source: source.into() })
    }

    /// Asks whether the URL is still what it was, and takes what it is otherwise.
    pub(super) fn revalidate(
        &self,
        http: &Http,
        ctx: Ctx<'_>,
    ) -> Result<(Digest, SnapshotId), RemoteError> {
        let record = self.store().records().get(&url_key(http))?;
        let known = record.and_then(|record| {
            let known: Known = serde_json::from_value(record.inputs).ok()?;
            Some((known, record.snapshot?, record.created))
        });
        let Some((known, tree, created)) = known else { return self.download(http, ctx) };
        if self.engine.options.offline {
            return Ok((known.digest, tree));
        }
        let mut fetch = self.request(http);
        if let Some(etag) = &known.etag {
            fetch.headers.push(("If-None-Match".to_owned(), etag.clone()));
        } else if let Some(time) = known.last_modified.as_ref()
            && http_date(time).is_some_and(|time| time + SETTLED_SECONDS < created / 1000)
        {
            fetch.headers.push(("If-Modified-Since".to_owned(), time.clone()));
        }
        let mut file = FileSink::new(self.store(), http, ctx.cancel)?;
        match self.web(http)?.fetch(&fetch, &mut file, ctx) {
            Ok(fetched) if fetched.not_modified => Ok((known.digest, tree)),
            Ok(fetched) => self.keep(http, file, fetched),
            Err(source) if is_outage(&source) => {
                let url = fetch.subject;
                let source = Box::new(source);
                Err(RemoteError::Unreachable { url, known: known.digest, source })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn download(&self, http: &Http, ctx: Ctx<'_>) -> Result<(Digest, SnapshotId), RemoteError> {
        let fetch = self.request(http);
        let mut file = FileSink::new(self.store(), http, ctx.cancel)?;
        let fetched = self.web(http)?.fetch(&fetch, &mut file, ctx)?;
        if fetched.not_modified {
            return Err(RemoteError::NotModified { url: fetch.subject });
        }
        self.keep(http, file, fetched)
    }

    /// Refuses other content than the source or the lock file names.
    fn check(&self, http: &Http, found: Digest) -> Result<(), RemoteError> {
        let Some(expected) = http.checksum.filter(|expected| *expected != found) else {
            return Ok(());
        };
        let url = shown(http);
        match &self.lock {
            Some(lock) if lock.find_url(&http.url) == Some(expected) => {
                Err(lock.drift(&url, found, expected).into())
            }
            _ => Err(RemoteError::Digest { url, found, expected }),
        }
    }

    fn web(&self, http: &Http) -> Result<&Registry, RemoteError> {
        self.network(|| format!("the content of {} is not in the store", shown(http)))
    }

    /// Verifies and publishes what was downloaded.
    fn keep(
        &self,
        http: &Http,
        mut file: FileSink,
        fetched: Fetched,
    ) -> Result<(Digest, SnapshotId), RemoteError> {
        let digest = std::mem::take(&mut file.hasher).finish();
        self.check(http, digest)?;
        let url = shown(http);
        let modified = fetched.last_modified.as_deref().and_then(http_date).unwrap_or_default();
        let time = Time { sec: modified, nsec: 0 };
        file.root.set_times(&http.name, time, time)?;
        let chain_id = Some(tree_id(&digest, http));
        let meta = SnapshotMeta { chain_id, ..SnapshotMeta::default() };
        let tree = self.store().snapshots().publish(file.new, meta)?;
        let known = Known { digest, etag: fetched.etag, last_modified: fetched.last_modified };
        let inputs = serde_json::to_value(known).unwrap_or_default();
        let mut record = StepRecord::new(url_key(http), "http", &url, inputs);
        record.snapshot = Some(tree.clone());
        self.store().records().put(&record)?;
        Ok((digest, tree))
    }

    fn request(&self, http: &Http) -> Fetch {
        let host = host(&http.url);
        let token = self.secret(&format!("HTTP_AUTH_TOKEN_{host}"));
        let header = self.secret(&format!("HTTP_AUTH_HEADER_{host}"));
        Fetch {
            url: http.url.clone(),
            subject: shown(http),
            headers: Vec::new(),
            authorization: token.map(|token| format!("Bearer {token}")).or(header),
            body: None,
            put: false,
            report: true,
        }
    }
}

/// Whether the server, not the request, is at fault.
fn is_outage(error: &RegistryError) -> bool {
    match error {
        RegistryError::Connection { .. } | RegistryError::Stalled { .. } => true,
        RegistryError::Status { answer, .. } => answer.status >= 500,
        _ => false,
    }
}

/// The URL as it may be shown and kept.
fn shown(http: &Http) -> String {
    rbuild_plan::without_passwords(&http.url)
}

/// Host and port of a URL, without user.
pub(super) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Host name of a URL, without user and port.
fn host(url: &str) -> &str {
    let host = authority(url);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Where the record of a URL is.
fn url_key(http: &Http) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field("rbuild http url 1").field(&http.url);
    hasher.finish()
}

/// Names the tree with one file of this content.
fn tree_id(content: &Digest, http: &Http) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field("rbuild http tree 1").field(content.as_bytes()).field(&http.name);
    hasher.finish()
}

/// Seconds since 1970 of an HTTP date (RFC 9110, 5.6.7); what it cannot be is no date.
fn http_date(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(time.as_second()).filter(|seconds| *seconds >= 0)
}

/// A download on its way into a new tree.
struct FileSink {
    new: NewSnapshot,
    root: Root,
    file: File,
    hasher: Hasher,
}

impl FileSink {
    fn new(store: &Store, http: &Http, cancel: &CancelToken) -> Result<Self, RemoteError> {
        let new = store.snapshots().allocate("http", cancel)?;
        let tree = new.path().join("fs");
        // The umask is not asked.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::create_dir(&tree)
            .and_then(|()| fs_err::set_permissions(&tree, mode))
            .map_err(|source| RemoteError::Write { url: shown(http), source })?;
        let root = Root::open(&tree)?;
        let file = root.create_file(&http.name, MODE)?;
        Ok(Self { new, root, file, hasher: Hasher::new() })
    }
}

impl BlobSink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.hasher = Hasher::new();
        self.file.rewind()?;
        self.file.set_len(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_hosts() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for bad in ["", "yesterday", "Sun, 06 Nov 1894 08:49:37 GMT"] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
        assert_eq!(host("https://u:p@h.example:80/x@y"), "h.example");
        assert_eq!(host("http://[::1]:80/"), "::1");
    }
}
