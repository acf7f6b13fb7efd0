//! Options of every command: the store, its limits, and the registries.

use std::path::PathBuf;

use clap::Args;
use rbuild::{EngineOptions, Mirror, RegistryOptions, SpaceLimits};

use crate::args::space;
use crate::environment::Environment;
use crate::failure::Failure;

/// Docker's folder of certificates by registry host.
const CERTS: &str = "/etc/docker/certs.d";

/// Where the store is, how large it may be, and how registries are reached.
#[derive(Debug, Default, Args)]
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
    /// Ask no server: bases, URLs and git references are what they were when they were asked last,
    /// and what the store does not have is an error [env: RBUILD_OFFLINE]
    #[arg(long, global = true, help_heading = "Global options")]
    pub offline: bool,
    /// Prune cache, oldest use first, until the store has at most this size (10GB, 20% of the
    /// disk): while building, and by `prune`, which heeds the flag only [env:
    /// RBUILD_MAX_USED_SPACE]
    #[arg(long, global = true, value_name = "SPACE", help_heading = "Global options")]
    pub max_used_space: Option<String>,
    /// Never prune below this size for the sake of the other two; alone, prune down to it
    /// [env: RBUILD_RESERVED_SPACE]
    #[arg(
        long,
        global = true,
        alias = "keep-storage",
        value_name = "SPACE",
        help_heading = "Global options"
    )]
    pub reserved_space: Option<String>,
    /// Prune cache until this much of the disk is free [env: RBUILD_MIN_FREE_SPACE]
    #[arg(long, global = true, value_name = "SPACE", help_heading = "Global options")]
    pub min_free_space: Option<String>,
}

impl GlobalArgs {
    /// How the engine is set up.
    pub fn engine_options(&self, environment: &Environment) -> Result<EngineOptions, Failure> {
        let mut options = EngineOptions::new(self.store(environment)?);
        options.registry = self.registry(environment)?;
        options.offline = self.offline || environment.offline()?;
        options.limits = self.limits(Some(environment))?;
        Ok(options)
    }

    /// How large the store may be, by the command line and, where that says nothing, by the
    /// environment.
    pub fn limits(&self, environment: Option<&Environment>) -> Result<SpaceLimits, Failure> {
        let limit = |given: &Option<String>, flag: &str, variable: &str| {
            let set = || Some((variable, environment?.filled(variable)?));
            let (name, text) = match given {
                Some(text) => (flag, text.as_str()),
                None => match set() {
                    Some(set) => set,
                    None => return Ok(None),
                },
            };
            space::parse(name, text).map(Some)
        };
        Ok(SpaceLimits {
            max_used: limit(&self.max_used_space, "--max-used-space", "RBUILD_MAX_USED_SPACE")?,
            reserved: limit(&self.reserved_space, "--reserved-space", "RBUILD_RESERVED_SPACE")?,
            min_free: limit(&self.min_free_space, "--min-free-space", "RBUILD_MIN_FREE_SPACE")?,
        })
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
    use rbuild::Space;

    use super::*;

    #[test]
    fn mirrors_of_the_command_line_come_before_those_of_the_environment() {
        let global = GlobalArgs {
            registry_mirror: vec!["docker.io=http://a:1/p/".into()],
            insecure_registry: vec!["b".into()],
            ..GlobalArgs::default()
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
    fn the_command_line_limits_before_the_environment() {
        let global = GlobalArgs { max_used_space: Some("1GB".into()), ..GlobalArgs::default() };
        let environment = Environment::of(&[
            ("RBUILD_MAX_USED_SPACE", "2GB"),
            ("RBUILD_MIN_FREE_SPACE", "10%"),
            ("RBUILD_RESERVED_SPACE", ""),
        ]);
        let limits = global.limits(Some(&environment)).unwrap();
        assert_eq!(limits.max_used, Some(Space::Bytes(1_000_000_000)));
        assert_eq!((limits.min_free, limits.reserved), (Some(Space::Percent(10)), None));
        assert_eq!(global.limits(None).unwrap().min_free, None);
        let environment = Environment::of(&[("RBUILD_RESERVED_SPACE", "much")]);
        assert!(global.limits(Some(&environment)).is_err());
    }

    #[test]
    fn half_a_mirror_is_refused() {
        for bad in ["docker.io", "=x", "docker.io=", "docker.io=http://"] {
            assert!(mirror(bad, &[]).is_err(), "{bad}");
        }
    }
}
