//! How registries are reached: by which addresses, and as whom.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use rbuild::{CredentialSource, Login, Mirror, Reference, RegistriesConf, RegistryOptions, Secret};

use crate::args::switch;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::machine_registries;

/// Where Docker and podman have certificates by registry host.
const CERTS: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];

/// Options of every command that speaks to registries.
#[derive(Debug, Default, Args)]
pub struct RegistryArgs {
    /// Ask LOCATION (host[:port][/prefix]) before HOST, such as docker.io=mirror.local:5000; may be
    /// repeated [env: RBUILD_REGISTRY_MIRRORS]
    #[arg(long, global = true, value_name = "HOST=LOCATION", help_heading = "Global options")]
    pub registry_mirror: Vec<String>,
    /// Believe this registry without a certificate that somebody signed, and speak plain HTTP where
    /// it has none at all; also of a network, such as 10.0.0.0/8; may be repeated
    /// [env: RBUILD_INSECURE_REGISTRIES]
    #[arg(long, global = true, value_name = "HOST", help_heading = "Global options")]
    pub insecure_registry: Vec<String>,
    /// Look for credentials in this file only, in the form of Docker's config.json or podman's
    /// auth.json; `login` and `logout` change it [env: REGISTRY_AUTH_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub authfile: Option<PathBuf>,
    /// Show the password of registry HOST to this token server too, which is on another site; may be
    /// repeated
    #[arg(long, global = true, value_name = "HOST=SERVER", help_heading = "Global options")]
    pub token_host: Vec<String>,
    /// `false` is as if every registry were named by `--insecure-registry`
    #[arg(
        long,
        global = true,
        action = clap::ArgAction::Set,
        value_parser = switch::parse,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Global options"
    )]
    pub tls_verify: Option<bool>,
    /// Trust the *.crt in this directory, and show its NAME.cert with NAME.key to registries; the
    /// directories of single registries do not count then
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub cert_dir: Option<PathBuf>,
    /// Be this user of a registry: of HOST, or else of the one that the command names; may be
    /// repeated
    #[arg(
        long,
        global = true,
        value_name = "[HOST=]USER:PASSWORD",
        help_heading = "Global options"
    )]
    pub creds: Vec<Creds>,
}

/// A user of a registry, as it stands on the command line. It is read later: clap's errors repeat
/// what they are about, and this may be a bare password.
#[derive(Clone)]
pub struct Creds(String);

impl std::fmt::Debug for Creds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Creds(not shown)")
    }
}

impl From<String> for Creds {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Creds {
    /// The registry, if one is named, and who we are there.
    fn read(&self) -> Result<(Option<String>, Login), Failure> {
        let text = self.0.as_str();
        let (host, rest) = match text.split_once('=') {
            // `me:pass=word` has no host in front, but for one with a port it looks the same.
            Some((host, rest)) if rest.contains(':') => match registry(host) {
                Some(host) => (Some(host), rest),
                None => (None, text),
            },
            _ => (None, text),
        };
        let (user, password) = rest
            .split_once(':')
            .filter(|(user, _)| !user.is_empty())
            .ok_or_else(|| Failure::usage("--creds: not of the form [HOST=]USER:PASSWORD"))?;
        Ok((host, Login { user: user.to_owned(), password: Secret::new(password) }))
    }
}

/// The registry that a text names, in the grammar of names.
fn registry(text: &str) -> Option<String> {
    let reference: Reference = format!("{text}/x/y").parse().ok()?;
    (reference.path() == "x/y").then(|| reference.host().to_owned())
}

impl RegistryArgs {
    /// For a command whose line names these images.
    pub fn options_for(
        &self,
        environment: &Environment,
        images: &[String],
    ) -> Result<RegistryOptions, Failure> {
        if let Some(file) = self.authfile.as_ref().filter(|file| !file.exists()) {
            let message = format!("--authfile {}: there is no such file", file.display());
            return Err(Failure::usage_hint(message, "`rbuild login --authfile` makes it"));
        }
        let mut options = self.options(environment)?;
        for creds in &self.creds {
            let (host, login) = creds.read()?;
            let host = match host {
                Some(host) => host,
                None => only_registry(&options.registries, images)?,
            };
            options.logins.insert(host, login);
        }
        Ok(options)
    }

    /// What does not depend on the command.
    pub fn options(&self, environment: &Environment) -> Result<RegistryOptions, Failure> {
        let mut options = self.given(environment)?;
        // What lies in the store can be used without them.
        if let Err(failure) = machine_registries::add(&mut options, environment) {
            options.problem = Some(failure.sentence());
        }
        Ok(options)
    }

    /// What the command line and the environment say.
    fn given(&self, environment: &Environment) -> Result<RegistryOptions, Failure> {
        if let Some(directory) = self.cert_dir.as_ref().filter(|directory| !directory.is_dir()) {
            let message = format!("--cert-dir {}: there is no such directory", directory.display());
            return Err(Failure::usage(message));
        }
        let credentials = match &self.authfile {
            Some(file) => vec![CredentialSource::File(file.clone())],
            None => environment.credentials(),
        };
        let mut options = RegistryOptions {
            credentials,
            proxies: environment.proxies(),
            known_hosts: environment.known_hosts(),
            tls_verify: self.tls_verify.unwrap_or(true),
            certs_dirs: CERTS
                .into_iter()
                .map(PathBuf::from)
                .chain(environment.certs_dir())
                .collect(),
            cert_dir: self.cert_dir.clone(),
            ..RegistryOptions::default()
        };
        options.insecure = environment.insecure_registries();
        options.insecure.extend(self.insecure_registry.iter().cloned());
        let given = environment.registry_mirrors();
        // What stands on the command line is asked first.
        for text in self.registry_mirror.iter().chain(&given) {
            let (host, mirror) = mirror(text)?;
            options.mirrors.entry(host).or_default().push(mirror);
        }
        for text in &self.token_host {
            let parts = text.split_once('=').filter(|(_, server)| !server.is_empty());
            let known = parts.and_then(|(host, server)| Some((registry(host)?, server)));
            let Some((host, server)) = known else {
                return Err(Failure::usage_hint(
                    format!("--token-host {text}: not of the form HOST=SERVER"),
                    "for example r.example.com=auth.example.net",
                ));
            };
            options.token_hosts.entry(host).or_default().push(server.to_owned());
        }
        Ok(options)
    }

    /// The file that `login` and `logout` change.
    pub fn login_file(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        self.authfile.clone().or_else(|| environment.login_file()).ok_or_else(|| {
            Failure::usage_hint(
                "no file for credentials: neither DOCKER_CONFIG nor HOME is set",
                "name one with --authfile FILE",
            )
        })
    }
}

/// The registry that all these images are of. A password goes to nobody whom the line does not
/// name, be it by an alias.
fn only_registry(registries: &RegistriesConf, images: &[String]) -> Result<String, Failure> {
    let hosts: BTreeSet<String> = images
        .iter()
        .filter_map(|name| registries.reference(name).ok())
        .map(|name| name.host().to_owned())
        .collect();
    let refused = |why| {
        let message = format!("--creds: the command names {why}, so the password is nobody's");
        Failure::usage_hint(message, "say whose it is: --creds HOST=USER:PASSWORD")
    };
    match hosts.into_iter().collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(refused("no registry")),
        _ => Err(refused("several registries")),
    }
}

fn mirror(text: &str) -> Result<(String, Mirror), Failure> {
    let parts = text.split_once('=').filter(|(host, _)| !host.is_empty());
    let known =
        parts.and_then(|(host, at)| Some((host.to_owned(), machine_registries::mirror(at)?)));
    known.ok_or_else(|| {
        Failure::usage_hint(
            format!("--registry-mirror {text}: not of the form HOST=LOCATION"),
            "for example docker.io=mirror.local:5000",
        )
    })
}

#[cfg(test)]
mod tests {
    use rbuild::Serves;

    use super::*;

    #[test]
    fn mirrors_of_the_command_line_come_before_those_of_the_environment() {
        let args = RegistryArgs {
            registry_mirror: vec!["docker.io=http://a:1/p/".into()],
            ..RegistryArgs::default()
        };
        let environment = Environment::of(&[
            ("RBUILD_REGISTRY_MIRRORS", "docker.io=b,ghcr.io=https://c"),
            ("HOME", "/h"),
        ]);
        let options = args.given(&environment).unwrap();
        let mirror = |location: &str, insecure| Mirror {
            location: location.into(),
            insecure,
            serves: Serves::All,
        };
        assert_eq!(options.mirrors["docker.io"], [mirror("a:1/p", true), mirror("b", false)]);
        assert_eq!(options.mirrors["ghcr.io"], [mirror("c", false)]);
    }

    #[test]
    fn a_password_on_the_line_is_for_one_registry() {
        let logins = |creds: &str, images: &[&str]| {
            let args =
                RegistryArgs { creds: vec![creds.to_owned().into()], ..RegistryArgs::default() };
            let images: Vec<String> = images.iter().map(ToString::to_string).collect();
            let options = args.options_for(&Environment::of(&[]), &images);
            options.map(|options| format!("{:?}", options.logins))
        };
        for (creds, images, host) in [
            ("me:pa=ss", &["r.example/a", "r.example/b"][..], "r.example"),
            ("me:p:w", &["alpine"], "docker.io"),
            ("q.io:5000=me:pw", &["r.example/a"], "q.io:5000"),
            ("index.docker.io=me:pw", &["r.example/a"], "docker.io"),
        ] {
            let found = logins(creds, images).unwrap();
            assert!(found.contains(&format!("{host:?}: Login {{ user: \"me\"")), "{found}");
        }
        for images in [&[][..], &["alpine", "r.example/a"]] {
            let error = format!("{:?}", logins("me:hunter2", images).unwrap_err());
            assert!(error.contains("HOST=USER") && !error.contains("hunter2"), "{error}");
        }
        for bad in ["", "me", ":x", "q.io=me", "q.io:5000="] {
            let creds = Creds::from(bad.to_owned());
            assert!(creds.read().is_err() || bad == "q.io:5000=", "{bad}");
        }
    }

    #[test]
    fn a_password_goes_where_an_alias_leads() {
        let mut registries = RegistriesConf::default();
        registries.add("/etc/x.conf".as_ref(), "[aliases]\napp = 'r.example/team/app'").unwrap();
        let of = |images: &[&str]| {
            let images: Vec<String> = images.iter().map(ToString::to_string).collect();
            only_registry(&registries, &images).ok()
        };
        assert_eq!(of(&["app:1", "r.example/b"]).as_deref(), Some("r.example"));
        assert_eq!(of(&["app", "alpine"]), None);
    }

    #[test]
    fn what_is_mistyped_is_not_shown() {
        let creds = Creds::from("hunter2".to_owned());
        let error = format!("{:?}{creds:?}", creds.read().unwrap_err());
        assert!(error.contains("USER:PASSWORD") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn token_servers_are_of_one_registry() {
        let given = |text: &str| {
            let args = RegistryArgs { token_host: vec![text.into()], ..RegistryArgs::default() };
            Some(args.given(&Environment::of(&[])).ok()?.token_hosts)
        };
        let expected = [("r.example".to_owned(), vec!["auth.other".to_owned()])];
        assert_eq!(given("r.example=auth.other"), Some(expected.into()));
        for bad in ["r.example", "r.example=", "team=auth.other", "=x"] {
            assert_eq!(given(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let args = RegistryArgs { authfile: Some("/nowhere".into()), ..RegistryArgs::default() };
        let environment = Environment::of(&[("HOME", "/h")]);
        assert!(args.options_for(&environment, &[]).is_err());
        assert_eq!(args.login_file(&environment).unwrap(), PathBuf::from("/nowhere"));
    }

    #[test]
    fn half_a_mirror_is_refused() {
        for bad in ["docker.io", "=x", "docker.io=", "docker.io=http://"] {
            assert!(mirror(bad).is_err(), "{bad}");
        }
    }
}
