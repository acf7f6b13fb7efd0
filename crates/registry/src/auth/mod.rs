//! Who we are towards a registry: finds credentials, gets tokens, remembers both in memory.
//!
//! Nothing is sent before a registry asks for it by 401. Then the credentials for its host are
//! looked up (afresh, so that a new login counts) and turned into an `Authorization` header,
//! which is kept under (origin, user, scope) until it expires or is refused. One request per
//! origin does this at a time; the others wait and use what it got.

mod challenge;
mod config_json;
mod helper;
mod realm;
mod token;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::exchange::{Client, Errand};
use crate::place::Origin;
use crate::retry::Failure;
use crate::{RegistryError, RegistryOptions};
use challenge::Challenge;
use realm::Trust;

/// A text that must not be seen: it has neither `Debug` nor `Display`.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn expose(&self) -> &str {
        &self.0
    }
}

/// What is stored for a registry.
#[derive(Clone)]
pub(crate) enum Credential {
    /// User name and password.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// A refresh token for the token server.
    IdentityToken(Secret),
    /// A token for the registry itself.
    RegistryToken(Secret),
}

impl Credential {
    /// Helpers mark identity tokens by the user name `<token>`.
    fn of(user: &str, secret: &str) -> Self {
        match user {
            "<token>" => Self::IdentityToken(Secret::new(secret)),
            user => Self::Password { user: user.to_owned(), password: Secret::new(secret) },
        }
    }

    fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } => user,
            Self::IdentityToken(_) => "<identity token>",
            Self::RegistryToken(_) => "<registry token>",
        }
    }
}

/// What a 401 was about.
pub(crate) struct Demand<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) scope: &'a str,
    /// The answer's headers.
    pub(crate) headers: &'a HeaderMap,
    /// The authorization that was refused, if one was sent.
    pub(crate) refused: Option<HeaderValue>,
}

#[derive(Default)]
pub(crate) struct Authenticator {
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    identities: HashMap<Origin, Identity>,
    authorizations: HashMap<(Origin, String, String), Authorization>,
    turns: HashMap<Origin, Arc<tokio::sync::Mutex<()>>>,
}

/// As whom we last spoke to an origin.
#[derive(Clone, Default)]
struct Identity {
    /// Empty when anonymous.
    user: String,
    /// Why credentials were not used; becomes part of an error's way out.
    note: Option<String>,
}

#[derive(Clone)]
struct Authorization {
    header: HeaderValue,
    expires: Option<Instant>,
}

impl Authorization {
    fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| Instant::now() < expires)
    }
}

/// Basic authorizations are good for every scope.
const ANY_SCOPE: &str = "";

impl Authenticator {
    /// The header to send to `origin` for `scope`, if one is known.
    pub(crate) fn authorization(&self, origin: &Origin, scope: &str) -> Option<HeaderValue> {
        let memory = self.memory();
        let user = memory.identities.get(origin)?.user.clone();
        [scope, ANY_SCOPE].into_iter().find_map(|scope| {
            let key = (origin.clone(), user.clone(), scope.to_owned());
            let found = memory.authorizations.get(&key)?;
            found.is_fresh().then(|| found.header.clone())
        })
    }

    /// Gets an authorization that answers `demand`. `false` when there is nothing to offer.
    pub(crate) async fn authenticate(
        &self,
        client: &Client,
        errand: &Errand,
        demand: &Demand<'_>,
    ) -> Result<bool, Failure> {
        let turn = self.memory().turns.entry(demand.origin.clone()).or_default().clone();
        let _turn = turn.lock().await;
        let known = self.authorization(demand.origin, demand.scope);
        if known.is_some() && known != demand.refused {
            return Ok(true);
        }
        let Found { credential, mut note } = find(&client.options, errand).await?;
        let challenges = challenges(demand.headers);
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let mut user = credential.as_ref().map(|found| found.user().to_owned()).unwrap_or_default();
        let offered = match (bearer, &credential) {
            (_, Some(Credential::RegistryToken(token))) => {
                Some((demand.scope, Authorization { header: bearer_header(token)?, expires: None }))
            }
            (Some((realm, service, scope)), _) => {
                let mut server = token::Server::new(client, errand, demand.origin, realm)?;
                if credential.is_some() && server.trust == Trust::Anonymous {
                    note = Some(format!(
                        "its credentials were not sent to its token server {}, which is on \
                         another site (token_hosts can allow that)",
                        server.host()
                    ));
                    user.clear();
                }
                server.ask(service.as_deref(), &wanted(demand.scope, scope.as_deref()));
                let offer = credential.as_ref().filter(|_| server.trust == Trust::Credentials);
                let token = token::fetch(client, errand, &server, offer).await?;
                let header = bearer_header(&token.token)?;
                Some((demand.scope, Authorization { header, expires: Some(token.expires) }))
            }
            (None, Some(Credential::Password { user, password }))
                if challenges.contains(&Challenge::Basic) =>
            {
                let header = basic_header(user, password)?;
                Some((ANY_SCOPE, Authorization { header, expires: None }))
            }
            _ => None,
        };
        let mut memory = self.memory();
        memory.identities.insert(demand.origin.clone(), Identity { user: user.clone(), note });
        match offered {
            Some((scope, authorization)) => {
                let key = (demand.origin.clone(), user, scope.to_owned());
                // A long-lived host must not gather tokens for ever.
                memory.authorizations.retain(|_, known| known.is_fresh());
                memory.authorizations.insert(key, authorization);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// What to do about a 401 or 403 from `origin`.
    pub(crate) fn hint(&self, origin: &Origin, host: &str) -> String {
        let identity = self.memory().identities.get(origin).cloned().unwrap_or_default();
        hint(host, &identity.user, identity.note.as_deref())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is one insertion, so a panic leaves nothing half-done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hint(host: &str, user: &str, note: Option<&str>) -> String {
    let login = match host {
        "docker.io" => "docker login".to_owned(),
        host => format!("docker login {host}"),
    };
    let mut hint = match user {
        "" => format!(
            "check the name, and if it needs a login run `{login}` or write the credentials to \
             Docker's config.json"
        ),
        user => format!(
            "the stored credentials ({}) do not suffice: check the name, or run `{login}` again",
            crate::text::printable(user)
        ),
    };
    if let Some(note) = note {
        hint.push_str("; note that ");
        hint.push_str(note);
    }
    hint
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(challenge::parse).collect()
}

fn bearer_header(token: &Secret) -> Result<HeaderValue, RegistryError> {
    sensitive(format!("Bearer {}", token.expose()))
}

fn basic_header(user: &str, password: &Secret) -> Result<HeaderValue, RegistryError> {
    let both = format!("{user}:{}", password.expose());
    let encoded = base64::engine::general_purpose::STANDARD.encode(both);
    sensitive(format!("Basic {encoded}"))
}

fn sensitive(text: String) -> Result<HeaderValue, RegistryError> {
    let mut header = HeaderValue::try_from(text).map_err(|_| RegistryError::Token {
        host: "the registry".to_owned(),
        reason: "the token has characters that no HTTP header may have".to_owned(),
    })?;
    header.set_sensitive(true);
    Ok(header)
}

struct Found {
    credential: Option<Credential>,
    note: Option<String>,
}

/// What a token is asked for: what the registry says, and what we know to need beyond that.
///
/// A registry names what the request at hand needs: `pull` for the first of a push, and never the
/// repository that a blob is mounted from. Where it goes by another name than ours, its own
/// counts.
fn wanted(ours: &str, theirs: Option<&str>) -> String {
    let Some(theirs) = theirs else { return ours.to_owned() };
    let parts = |scope| str::split(scope, ' ').filter(|part| !part.is_empty());
    let resource = |part: &str| part.rsplit_once(':').map(|(resource, _)| resource.to_owned());
    let known: Vec<_> = parts(ours).map(resource).collect();
    let further: Vec<_> = parts(theirs).filter(|part| !known.contains(&resource(part))).collect();
    if further.len() == parts(theirs).count() {
        return theirs.to_owned();
    }
    parts(ours).chain(further).collect::<Vec<_>>().join(" ")
}

/// Looks up the credentials for the errand's place, off the network thread.
async fn find(options: &RegistryOptions, errand: &Errand) -> Result<Found, RegistryError> {
    let nothing = Found { credential: None, note: None };
    if options.docker_config.is_none() {
        return Ok(nothing);
    }
    let cancelled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
    let flag = cancelled.0.clone();
    let options = options.clone();
    let (host, repository) = (errand.place.host.clone(), errand.place.repository.clone());
    let search = move || search(&options, &host, &repository, &flag);
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

/// A helper named for the host wins, then the store for all hosts, then the file itself.
fn search(
    options: &RegistryOptions,
    host: &str,
    repository: &str,
    cancelled: &AtomicBool,
) -> Result<Found, RegistryError> {
    let Some(path) = &options.docker_config else {
        return Ok(Found { credential: None, note: None });
    };
    let config = config_json::read(path)?;
    let ask = |name: &str, server: &str| {
        helper::ask(options.helper_dir.as_deref(), name, server, options.helper_timeout, cancelled)
    };
    let mut note = None;
    let mut credential = None;
    if let Some((name, server)) = config.helper(host) {
        credential = ask(name, server).map_err(|reason| RegistryError::Helper {
            helper: crate::text::printable(name),
            host: host.to_owned(),
            reason,
        })?;
    } else if let Some((name, server)) = config.store(host) {
        // A configuration that was copied to a machine without the helper still pulls what is
        // public; what is not public gets this note into its error.
        match ask(name, server) {
            Ok(found) => credential = found,
            Err(reason) => {
                let name = crate::text::printable(name);
                note = Some(format!("docker-credential-{name} (credsStore) failed: {reason}"));
            }
        }
    }
    Ok(Found { credential: credential.or_else(|| config.credential(host, repository)), note })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_asks_for_all_that_it_will_need() {
        let ours = "repository:a/b:pull,push repository:c:pull";
        assert_eq!(wanted(ours, None), ours);
        assert_eq!(wanted(ours, Some("repository:a/b:pull")), ours);
        assert_eq!(
            wanted(ours, Some("repository:a/b:pull registry:x:*")),
            format!("{ours} registry:x:*")
        );
        assert_eq!(wanted(ours, Some("repository:proxy/a/b:pull")), "repository:proxy/a/b:pull");
        assert_eq!(wanted("repository:a:pull", Some("repository:a:pull")), "repository:a:pull");
    }
}
