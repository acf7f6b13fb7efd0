//! What a registry keeps of pushes: sessions, blobs by repository, manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use rbuild_types::Digest;

use crate::support::{Reply, Request};

/// How a registry deals with uploads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// Says how far an upload is, and goes on from there.
    Resumes,
    /// As Docker's own: a session whose body broke is gone.
    Forgets,
}

pub struct Shelf {
    manner: Manner,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<String, Vec<u8>>,
    /// Repository and digest.
    blobs: BTreeSet<(String, String)>,
    content: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    begun: usize,
}

impl Shelf {
    pub fn new(manner: Manner) -> Self {
        Self { manner, state: Mutex::default() }
    }

    pub fn put(&self, repository: &str, bytes: &[u8]) {
        let digest = Digest::of(bytes).to_string();
        let mut state = self.state.lock().unwrap();
        state.blobs.insert((repository.to_owned(), digest.clone()));
        state.content.insert(digest, bytes.to_vec());
    }

    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let key = (repository.to_owned(), digest.to_string());
        state.blobs.contains(&key).then(|| state.content[&digest.to_string()].clone())
    }

    pub fn manifest(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().manifests.get(path).cloned()
    }

    pub fn sessions(&self) -> usize {
        self.state.lock().unwrap().sessions.len()
    }

    pub fn reply(&self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let path = path.trim_start_matches("/v2/");
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let found = pairs.into_iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.replace("%3A", ":"))
        };
        let state = &mut *self.state.lock().unwrap();
        if let Some((_, name)) = path.split_once("/manifests/") {
            if request.method == "GET" {
                return match state.manifests.get(path) {
                    Some(bytes) => Reply::new(200, bytes.clone()),
                    None => Reply::error(404, "MANIFEST_UNKNOWN", "no"),
                };
            }
            state.manifests.insert(path.to_owned(), request.body.clone());
            let digest = Digest::of(&request.body);
            let named = name.strip_prefix("sha256:").is_none_or(|_| digest.to_string() == name);
            return Reply::new(if named { 201 } else { 400 }, "")
                .with("Docker-Content-Digest", digest);
        }
        let Some((repository, rest)) = path.split_once("/blobs/") else {
            return Reply::error(404, "NAME_UNKNOWN", "no");
        };
        let key = |digest: &str| (repository.to_owned(), digest.to_owned());
        match (request.method.as_str(), rest.strip_prefix("uploads/")) {
            ("HEAD", None) => {
                Reply::new(if state.blobs.contains(&key(rest)) { 200 } else { 404 }, "")
            }
            ("POST", Some("")) => {
                if let (Some(digest), Some(from)) = (parameter("mount"), parameter("from"))
                    && state.blobs.contains(&(from, digest.clone()))
                {
                    state.blobs.insert(key(&digest));
                    return Reply::new(201, "");
                }
                state.begun += 1;
                let session = format!("session-{}", state.begun);
                state.sessions.insert(session.clone(), Vec::new());
                Reply::new(202, "").with(
                    "Location",
                    format!("/v2/{repository}/blobs/uploads/{session}?state=a%2Fb"),
                )
            }
            (method, Some(session)) => {
                let unknown = || Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload");
                let Some(mut bytes) = state.sessions.remove(session) else { return unknown() };
                if method == "DELETE" {
                    return Reply::new(204, "");
                }
                if method == "GET" && (self.manner == Manner::Resumes || bytes.is_empty()) {
                    let range = format!("0-{}", bytes.len().saturating_sub(1));
                    state.sessions.insert(session.to_owned(), bytes);
                    return Reply::new(204, "").with("Range", range);
                }
                if method == "GET" {
                    return unknown();
                }
                let first = request
                    .header("content-range")
                    .and_then(|range| range.split_once('-')?.0.parse::<usize>().ok());
                if first.unwrap_or(0) != bytes.len() {
                    return Reply::error(416, "RANGE_INVALID", "not where it is");
                }
                bytes.extend_from_slice(&request.body);
                let last = bytes.len().saturating_sub(1);
                if request.cut || method == "PATCH" {
                    state.sessions.insert(session.to_owned(), bytes);
                    return Reply::new(202, "").with("Range", format!("0-{last}"));
                }
                let digest = Digest::of(&bytes).to_string();
                if parameter("digest").as_deref() != Some(&digest) {
                    return Reply::error(400, "DIGEST_INVALID", "other bytes");
                }
                state.blobs.insert(key(&digest));
                state.content.insert(digest.clone(), bytes);
                Reply::new(201, "").with("Docker-Content-Digest", digest)
            }
            _ => Reply::error(405, "UNSUPPORTED", "no"),
        }
    }
}
