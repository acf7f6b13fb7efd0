//! Who we are towards a registry: finds credentials, gets tokens, remembers both in memory.
//!
//! Nothing is sent before a registry asks for it by 401. Then the credentials for its host are
//! looked up (afresh, so that a new login counts) and turned into an `Authorization` header,
//! which is kept under (origin, user, scope) until it expires or is refused. One request per
//! origin does this at a time; the others wait and use what it got.

mod beside;
mod challenge;
mod config_file;
mod config_json;
mod credential;
mod helper;
mod login;
mod lookup;
mod realm;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::RegistryError;
use crate::exchange::{Client, Errand};
use crate::place::Origin;
use crate::retry::Failure;
use challenge::Challenge;
use credential::Credential;
use lookup::{Found, find};
use realm::Trust;

pub use credential::{Login, Secret};
pub use login::{Forgotten, Kept, LoginStore};

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
    /// By scope too: which credentials are meant can depend on the repository.
    identities: HashMap<(Origin, String), Identity>,
    authorizations: HashMap<(Origin, String, String), Authorization>,
    turns: HashMap<Origin, Arc<tokio::sync::Mutex<()>>>,
}

/// As whom we last spoke to an origin about a scope.
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

impl Authenticator {
    /// The header to send to `origin` for `scope`, if one is known.
    pub(crate) fn authorization(&self, origin: &Origin, scope: &str) -> Option<HeaderValue> {
        let memory = self.memory();
        let about = (origin.clone(), scope.to_owned());
        let user = memory.identities.get(&about)?.user.clone();
        let found = memory.authorizations.get(&(about.0, user, about.1))?;
        found.is_fresh().then(|| found.header.clone())
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
                Some(Authorization { header: bearer_header(token)?, expires: None })
            }
            (Some((realm, service, scope)), _) => {
                let mut server = token::Server::new(client, errand, demand.origin, realm)?;
                if credential.is_some() && server.trust == Trust::Anonymous {
                    note = Some(format!(
                        "its credentials were not sent to its token server {}, which is on \
                         another site (--token-host can allow that)",
                        server.host()
                    ));
                    user.clear();
                }
                server.ask(service.as_deref(), &wanted(demand.scope, scope.as_deref()));
                let offer = credential.as_ref().filter(|_| server.trust == Trust::Credentials);
                let token = token::fetch(client, errand, &server, offer).await?;
                let header = bearer_header(&token.token)?;
                Some(Authorization { header, expires: Some(token.expires) })
            }
            (None, Some(Credential::Password(login))) if challenges.contains(&Challenge::Basic) => {
                Some(Authorization { header: basic_header(login)?, expires: None })
            }
            _ => None,
        };
        let mut memory = self.memory();
        let about = (demand.origin.clone(), demand.scope.to_owned());
        memory.identities.insert(about.clone(), Identity { user: user.clone(), note });
        match offered {
            Some(authorization) => {
                let key = (about.0, user, about.1);
                // A long-lived host must not gather tokens for ever.
                memory.authorizations.retain(|_, known| known.is_fresh());
                memory.authorizations.insert(key, authorization);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// What to do about a 401 or 403 from `origin` for `scope`.
    pub(crate) fn hint(&self, origin: &Origin, scope: &str, host: &str) -> String {
        let about = (origin.clone(), scope.to_owned());
        let identity = self.memory().identities.get(&about).cloned().unwrap_or_default();
        hint(host, &identity.user, identity.note.as_deref())
    }

    /// Why credentials for `origin` and `scope` were not used, if that is so.
    pub(crate) fn note(&self, origin: &Origin, scope: &str) -> Option<String> {
        self.memory().identities.get(&(origin.clone(), scope.to_owned()))?.note.clone()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is one insertion, so a panic leaves nothing half-done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hint(host: &str, user: &str, note: Option<&str>) -> String {
    let login = match host {
        "docker.io" => "rbuild login".to_owned(),
        host => format!("rbuild login {host}"),
    };
    let mut hint = match user {
        "" => format!("check the name, and if it needs a login run `{login}`"),
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

fn basic_header(login: &Login) -> Result<HeaderValue, RegistryError> {
    let both = format!("{}:{}", login.user, login.password.expose());
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
