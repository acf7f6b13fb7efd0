//! Finds the credentials for a place: those that the caller gave, else what the first file or text
//! has that has any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::config_json;
use super::credential::Credential;
use super::helper::Helper;
use crate::exchange::Errand;
use crate::options::CredentialSource;
use crate::text::printable;
use crate::{RegistryError, RegistryOptions};

#[derive(Default)]
pub(super) struct Found {
    pub(super) credential: Option<Credential>,
    /// Why something was not found that perhaps is there.
    pub(super) note: Option<String>,
}

/// Looks up the credentials for the errand's place, off the network thread.
pub(super) async fn find(
    options: &RegistryOptions,
    errand: &Errand,
) -> Result<Found, RegistryError> {
    let hosts = std::iter::once(&errand.place.host).chain(&errand.place.named);
    if let Some(login) = hosts.into_iter().find_map(|host| options.logins.get(host)) {
        return Ok(Found { credential: Some(Credential::of(login.clone())), note: None });
    }
    if options.credentials.is_empty() {
        return Ok(Found::default());
    }
    let cancelled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
    let flag = cancelled.0.clone();
    let options = options.clone();
    let (host, repository) = (errand.place.host.clone(), errand.place.repository.clone());
    let search = move || search(&options, &host, &repository, &|| flag.load(Ordering::SeqCst));
    tokio::task::spawn_blocking(search)
        .await
        .map_err(|error| RegistryError::Runtime { source: std::io::Error::other(error) })?
}

/// Tells a helper's guard that nobody waits any longer.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn search(
    options: &RegistryOptions,
    host: &str,
    repository: &str,
    cancelled: &dyn Fn() -> bool,
) -> Result<Found, RegistryError> {
    let mut note = None;
    for source in &options.credentials {
        let found = match search_in(source, options, host, repository, cancelled) {
            Err(error @ RegistryError::Config { .. })
                if matches!(source, CredentialSource::Usual(_)) =>
            {
                Found { credential: None, note: Some(printable(&error.to_string())) }
            }
            other => other?,
        };
        if found.credential.is_some() {
            return Ok(found);
        }
        note = note.or(found.note);
    }
    Ok(Found { credential: None, note })
}

/// What is stored for a part of the path wins, then a helper named for the host, then the store
/// for all hosts, then what is stored for the host.
fn search_in(
    source: &CredentialSource,
    options: &RegistryOptions,
    host: &str,
    repository: &str,
    cancelled: &dyn Fn() -> bool,
) -> Result<Found, RegistryError> {
    let config = config_json::read(source)?;
    let scoped = config.of_path(host, repository);
    if scoped.is_some() {
        return Ok(Found { credential: scoped, note: None });
    }
    let ask = |name: &str, server: &str| {
        let (directory, limit) = (options.helper_dir.as_deref(), options.helper_timeout);
        Helper { directory, name, limit, cancelled }.get(server)
    };
    let mut note = None;
    let mut credential = None;
    if let Some((name, server)) = config.helper(host) {
        credential = ask(name, server).map_err(|reason| RegistryError::Helper {
            helper: printable(name),
            host: host.to_owned(),
            reason,
        })?;
    } else if let Some((name, server)) = config.store(host) {
        // A configuration that was copied to a machine without the helper still pulls what is
        // public; what is not public gets this note into its error.
        match ask(name, server) {
            Ok(found) => credential = found,
            Err(reason) => {
                let name = printable(name);
                note = Some(format!("docker-credential-{name} (credsStore) failed: {reason}"));
            }
        }
    }
    Ok(Found { credential: credential.or_else(|| config.of_host(host)), note })
}
