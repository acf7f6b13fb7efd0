//! Options of every command: the store and the registries.

use std::path::PathBuf;

use clap::Args;
use rbuild::{EngineOptions, Mirror, RegistryOptions};

use crate::environment::Environment;
use crate::failure::Failure;

/// Docker's folder of certificates by registry host.
const CERTS: &str = "/etc/docker/certs.d";

/// Where the store is and how registries are reached.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Directory of the store [env: RBUILD_ROOT] [default: /var/lib/rbuild for root, else
    /// $XDG_DATA_HOME/rbuild]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub root: Option<PathBuf>,
    /// Ask LOCATION (host[:port][/prefix]) before HOST, such as docker.io=mirror.local:5000; may be
    /// repeated [env: RBUILD_REGISTRY_MIRRORS]
    #[arg(long, global = true, value_name = "HOST=LOCATION", help_heading = "Global options")]
    pub registry_mirror: Vec<String>,
    /// Speak plain HTTP to this host; may be repeated [env: RBUILD_INSECURE_REGISTRIES]
    #[arg(long, global = true, value_name = "HOST", help_heading = "Global options")]
    pub insecure_registry: Vec<String>,
}

impl GlobalArgs {
    /// How the engine is set up.
    pub fn engine_options(&self, environment: &Environment) -> Result<EngineOptions, Failure> {
        let mut options = EngineOptions::new(self.store(environment)?);
        options.registry = self.registry(environment)?;
        Ok(options)
    }

    /// Directory of the store.
    pub fn store(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        self.root.clone().or_else(|| environment.root()).ok_or_else(|| {
            Failure::usage_hint(
                "no directory for the store: neither RBUILD_ROOT, XDG_DATA_HOME nor HOME is set",
                "give one with --root DIR",
            )
        })
    }

    fn registry(&self, environment: &Environment) -> Result<RegistryOptions, Failure> {
        let mut options = RegistryOptions {
            docker_config: environment.docker_config(),
            proxies: environment.proxies(),
            known_hosts: environment.known_hosts(),
            certs_dir: Some(PathBuf::from(CERTS)).filter(|path| path.is_dir()),
            ..RegistryOptions::default()
        };
        options.insecure = environment.insecure_registries();
        options.insecure.extend(self.insecure_registry.iter().cloned());
        let given = environment.registry_mirrors();
        // What stands on the command line is asked first.
        for text in self.registry_mirror.iter().chain(&given) {
            let (host, mirror) = mirror(text, &options.insecure)?;
            options.mirrors.entry(host).or_default().push(mirror);
        }
        Ok(options)
    }
}

fn mirror(text: &str, insecure: &[String]) -> Result<(String, Mirror), Failure> {
    let parts = text.split_once('=').filter(|(host, location)| {
        !host.is_empty() && !location.trim_start_matches("http://").is_empty()
    });
    let Some((host, location)) = parts else {
        return Err(Failure::usage_hint(
            format!("--registry-mirror {text}: not of the form HOST=LOCATION"),
            "for example docker.io=mirror.local:5000",
        ));
    };
    let (location, plain) = match location.strip_prefix("http://") {
        Some(location) => (location, true),
        None => (location.strip_prefix("https://").unwrap_or(location), false),
    };
    let location = location.trim_end_matches('/');
    let name = location.split('/').next().unwrap_or_default();
    let plain = plain || insecure.iter().any(|host| host == name);
    Ok((host.to_owned(), Mirror { location: location.to_owned(), insecure: plain }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_of_the_command_line_come_before_those_of_the_environment() {
        let global = GlobalArgs {
            root: None,
            registry_mirror: vec!["docker.io=http://a:1/p/".into()],
            insecure_registry: vec!["b".into()],
        };
        let environment = Environment::of(&[
            ("RBUILD_REGISTRY_MIRRORS", "docker.io=b,ghcr.io=https://c"),
            ("HOME", "/h"),
        ]);
        let options = global.registry(&environment).unwrap();
        let mirror = |location: &str, insecure| Mirror { location: location.into(), insecure };
        assert_eq!(options.mirrors["docker.io"], [mirror("a:1/p", true), mirror("b", true)]);
        assert_eq!(options.mirrors["ghcr.io"], [mirror("c", false)]);
        assert_eq!(options.docker_config.unwrap(), PathBuf::from("/h/.docker/config.json"));
    }

    #[test]
    fn half_a_mirror_is_refused() {
        for bad in ["docker.io", "=x", "docker.io=", "docker.io=http://"] {
            assert!(mirror(bad, &[]).is_err(), "{bad}");
        }
    }
}
