//! Speaks the OCI distribution protocol behind a blocking handle.
//!
//! [`Registry`] pulls manifests and blobs from registries that speak OCI distribution 1.1 or
//! Docker's schema 2, and pushes them there. It is blocking, `Send + Sync` and cheap to clone; the async machinery lives
//! on a thread of its own (`runtime.rs`), so the handle may be used inside an async host.
//!
//! [`Registry::fetch`] downloads a plain URL by the same rules, and [`Registry::connect`] is for
//! protocols that are not HTTP: this is the only crate that opens connections.
//!
//! Invariants, in the order of the files that hold them:
//!
//! * Nothing here reads the environment or prints; all settings are in [`RegistryOptions`]. (The
//!   system's root certificates are found by `rustls-native-certs`, which honours
//!   `SSL_CERT_FILE`, and a credential helper inherits the environment.)
//! * A password or token is attached per request, for the one origin (scheme, host, port) that it
//!   belongs to, and never after a redirect has left that origin (`exchange.rs`).
//! * A password is sent to a token server only on the registry's own site (`auth/realm.rs`).
//! * Bytes are hashed on the way through; what does not match its digest or size is an error
//!   (`blob.rs`, `manifest.rs`). What is sent is checked by the registry, and its word for it that
//!   it stored the same (`push.rs`).
//! * Nothing is allocated by a claimed size: documents end at [`MAX_DOCUMENT`], blobs flow through
//!   a window of fixed size, in both directions (`runtime.rs`, `feed.rs`).
//! * No SSH server is believed that stands in no file of `RegistryOptions::known_hosts`
//!   (`ssh/known_hosts.rs`).
//! * Text that came from a registry is escaped before it enters an error (`text.rs`).

#![forbid(unsafe_code)]

mod auth;
mod blob;
mod body;
mod bucket;
mod certificates;
mod conversation;
mod error;
mod exchange;
mod feed;
mod fetch;
mod listing;
mod manifest;
mod network;
mod options;
mod place;
mod push;
mod redirect;
mod referrers;
mod registries_conf;
mod retry;
mod runtime;
mod ssh;
mod text;
mod transport;
mod upload;

use std::sync::Arc;

use rbuild_types::{CancelToken, Reference};

pub use auth::{Forgotten, Kept, Login, LoginStore, Secret};
pub use blob::BlobSink;
pub use bucket::{Bucket, BucketOptions, Object};
pub use conversation::Conversation;
pub use error::{Answer, PlaceFailure, RegistryError};
pub use fetch::{Fetch, Fetched};
pub use manifest::{MAX_DOCUMENT, ManifestBytes};
pub use options::{CredentialSource, Mirror, Proxies, RegistryOptions, Serves};
pub use push::{Pushed, Upload};
pub use referrers::Referrer;
pub use registries_conf::RegistriesConf;
pub use ssh::{PORT as SSH_PORT, SshCommand, SshLogin, SshPlace};

use exchange::Client;
use place::{Asked, Place};
use runtime::Runtime;

/// A blocking handle on all registries. Clones share connections, tokens and limits.
///
/// Every call may be made from any thread, also from within an async runtime, and ends within
/// about 100 ms of its context's cancellation, unless a sink is busy.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    client: Arc<Client>,
    runtime: Runtime,
}

impl Registry {
    /// Checks the options and starts the network thread. Opens no connection and no file.
    ///
    /// # Errors
    /// [`RegistryError::Options`] for options that cannot work, [`RegistryError::Runtime`] when
    /// the thread cannot be started.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        options.check()?;
        let runtime = Runtime::start()?;
        Ok(Self { inner: Arc::new(Inner { client: Arc::new(Client::new(options)), runtime }) })
    }

    /// Tries `attempt` on each place that serves `reference`, until one succeeds.
    fn at_each_place<T>(
        &self,
        reference: &Reference,
        asked: Asked,
        cancel: &CancelToken,
        mut attempt: impl FnMut(&Place) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut failures = Vec::new();
        for place in place::places(&self.inner.client.options, reference, asked)? {
            cancel.check()?;
            match attempt(&place) {
                Ok(value) => return Ok(value),
                Err(error) if error.ends_the_call() => return Err(error),
                Err(error) => failures.push(PlaceFailure { place: place.host, error }),
            }
        }
        Err(RegistryError::from_places(reference, failures))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}
