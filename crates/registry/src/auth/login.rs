//! `docker login` and `docker logout`: tries a login at its registry, and keeps it where Docker and
//! podman look for it.

use std::path::Path;

use rbuild_types::{Ctx, Reference};
use reqwest::Method;

use super::config_file::ConfigFile;
use super::config_json::{self, ConfigJson, is_key_of};
use super::credential::Login;
use super::helper::Helper;
use crate::exchange::{Access, Client, Errand, Outgoing, Target};
use crate::options::CredentialSource;
use crate::place;
use crate::retry::Attempts;
use crate::text::printable;
use crate::{Registry, RegistryError, RegistryOptions};

/// A file in the form of Docker's `config.json`, and the credential helpers that it names.
#[derive(Debug, Clone, Copy)]
pub struct LoginStore<'a> {
    /// The file. It is made when it is missing.
    pub file: &'a Path,
    /// How registries are reached, and where helpers are.
    pub options: &'a RegistryOptions,
}

/// Where a login is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the file, where whoever may read it can read it.
    InFile,
    /// By the credential helper of this name.
    ByHelper(String),
}

/// What became of a login that was to be forgotten.
#[derive(Debug)]
pub struct Forgotten {
    /// Whether there was one.
    pub found: bool,
    /// Why the credential helper may still have it, though the file has not.
    pub kept_by_helper: Option<RegistryError>,
}

/// What a login is for.
struct Server {
    host: String,
    /// A part of the registry's repositories, as podman has it: `team` of `quay.io/team`.
    path: Option<String>,
    /// A name in it.
    example: Reference,
}

impl LoginStore<'_> {
    /// Tries the login at `server` (`host[:port][/path]`) and keeps it. What does not go well
    /// changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::LoginRefused`] and any other [`RegistryError`] but those about blobs.
    pub fn log_in(&self, server: &str, login: &Login, ctx: Ctx<'_>) -> Result<Kept, RegistryError> {
        let server = Server::parse(server)?;
        let mut options = self.options.clone();
        options.credentials.clear();
        options.logins = [(server.host.clone(), login.clone())].into();
        let mut place = place::of_host(&options, &server.host);
        place.insecure |=
            options.registries.rule(&server.example).is_some_and(|(rule, _)| rule.insecure);
        let errand = Errand { place, subject: "a login".to_owned() };
        let registry = Registry::new(options)?;
        let client = registry.inner.client.clone();
        let tried = async move { client.try_login(&errand).await };
        registry.inner.runtime.run(ctx.cancel, tried).map_err(|error| match error {
            RegistryError::Unauthorized { answer, .. } => RegistryError::LoginRefused {
                host: server.host.clone(),
                user: printable(&login.user),
                answer,
            },
            other => other,
        })?;
        self.keep(&server, login, ctx)
    }

    /// Forgets the login at `server`: in the file first, whatever becomes of its helper.
    ///
    /// # Errors
    /// [`RegistryError::Config`], [`RegistryError::Server`], and [`RegistryError::Helper`] if the
    /// file has nothing.
    pub fn log_out(&self, server: &str, ctx: Ctx<'_>) -> Result<Forgotten, RegistryError> {
        let server = Server::parse(server)?;
        let config = config_json::read(&CredentialSource::File(self.file.to_owned()))?;
        let mut file = ConfigFile::open(self.file)?;
        let found = file.remove(|key| server.is_stored_under(key));
        if found {
            file.write()?;
        }
        match self.erase(&server, &config, ctx) {
            Ok(erased) => Ok(Forgotten { found: found || erased, kept_by_helper: None }),
            Err(error) if found => Ok(Forgotten { found, kept_by_helper: Some(error) }),
            Err(error) => Err(error),
        }
    }

    /// Lets the helper forget the login; whether it had one.
    fn erase(
        &self,
        server: &Server,
        config: &ConfigJson,
        ctx: Ctx<'_>,
    ) -> Result<bool, RegistryError> {
        let Some((name, key)) = server.helper(config) else { return Ok(false) };
        let cancelled = || ctx.cancel.is_cancelled();
        let helper = self.helper(name, &cancelled);
        let failed = server.failed(name);
        // Many helpers call it a failure to forget what they do not know.
        let is_known = helper.get(key).map_err(&failed)?.is_some();
        if is_known {
            helper.erase(key).map_err(&failed)?;
        }
        Ok(is_known)
    }

    fn keep(&self, server: &Server, login: &Login, ctx: Ctx<'_>) -> Result<Kept, RegistryError> {
        let config = config_json::read(&CredentialSource::File(self.file.to_owned()))?;
        let kept = match server.helper(&config) {
            Some((name, key)) => {
                let cancelled = || ctx.cancel.is_cancelled();
                self.helper(name, &cancelled).store(key, login).map_err(server.failed(name))?;
                Kept::ByHelper(name.to_owned())
            }
            None => Kept::InFile,
        };
        let key = server.key();
        let mut file = ConfigFile::open(self.file)?;
        // Old spellings of the key would be found before this one, or come to life again.
        file.remove(|stored| stored != key && server.is_stored_under(stored));
        file.put(&key, (kept == Kept::InFile).then_some(login))?;
        file.write()?;
        Ok(kept)
    }

    fn helper<'a>(&'a self, name: &'a str, cancelled: &'a dyn Fn() -> bool) -> Helper<'a> {
        let (directory, limit) = (self.options.helper_dir.as_deref(), self.options.helper_timeout);
        Helper { directory, name, limit, cancelled }
    }
}

impl Server {
    /// Reads what people write: a URL stands for its host.
    fn parse(text: &str) -> Result<Self, RegistryError> {
        let odd = || RegistryError::Server { server: printable(text) };
        let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let (host, path) = match (bare, text.split_once('/')) {
            (Some(url), _) => (url.split('/').next().unwrap_or_default(), None),
            (None, Some((host, path))) => (host, Some(path.trim_end_matches('/'))),
            (None, None) => (text, None),
        };
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            host => host,
        };
        let path = path.filter(|path| !path.is_empty());
        // The grammar of names says what a host is, and what a path.
        let name = format!("{host}/{}", path.unwrap_or("x/y"));
        let reference = name.parse::<Reference>().map_err(|_| odd())?;
        if reference.host() != host || reference.repository() != name {
            return Err(odd());
        }
        Ok(Self { host: host.to_owned(), path: path.map(str::to_owned), example: reference })
    }

    /// What it is stored under.
    fn key(&self) -> String {
        match &self.path {
            Some(path) => format!("{}/{path}", self.host),
            None => config_json::server(&self.host).to_owned(),
        }
    }

    fn is_stored_under(&self, key: &str) -> bool {
        match &self.path {
            Some(_) => key == self.key(),
            None => is_key_of(key, &self.host),
        }
    }

    /// The helper that keeps it, and its name there. Helpers know whole hosts only.
    fn helper<'a>(&'a self, config: &'a ConfigJson) -> Option<(&'a str, &'a str)> {
        if self.path.is_some() {
            return None;
        }
        config.helper(&self.host).or_else(|| config.store(&self.host))
    }

    fn failed(&self, helper: &str) -> impl Fn(String) -> RegistryError {
        let (helper, host) = (printable(helper), self.host.clone());
        move |reason| RegistryError::Helper { helper: helper.clone(), host: host.clone(), reason }
    }
}

impl Client {
    /// Asks the registry for nothing but whether it lets us in.
    async fn try_login(&self, errand: &Errand) -> Result<(), RegistryError> {
        let outgoing = Outgoing {
            target: Target::Root,
            ..Outgoing::new(Method::GET, String::new(), Access::Any)
        };
        let scope = outgoing.access.scope(&errand.place.repository);
        let mut attempts = Attempts::new(&self.options, false);
        attempts.repeat(|| self.exchange(errand, &outgoing)).await?;
        let origin = self.origin(&errand.place).await?;
        match self.authentication_note(&origin, &scope) {
            // It let in whom it does not know.
            Some(reason) => Err(RegistryError::Token { host: errand.place.host.clone(), reason }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_what_people_write() {
        for (text, key) in [
            ("docker.io", "https://index.docker.io/v1/"),
            ("index.docker.io", "https://index.docker.io/v1/"),
            ("https://index.docker.io/v1/", "https://index.docker.io/v1/"),
            ("r.example:5000", "r.example:5000"),
            ("http://r.example:5000/v2/", "r.example:5000"),
            ("localhost", "localhost"),
            ("quay.io/team/app", "quay.io/team/app"),
            ("quay.io/", "quay.io"),
        ] {
            assert_eq!(Server::parse(text).unwrap().key(), key, "{text}");
        }
        for odd in ["", "team", "a b.io", "https://", "q.io/Team", "q.io/a:1", "me@q.io", "q.io//a"]
        {
            assert!(Server::parse(odd).is_err(), "{odd}");
        }
    }
}
