//! Options of every command: the store, its limits, and the registries.

use std::path::PathBuf;

use clap::Args;
use rbuild::{EngineOptions, SpaceLimits};

use crate::args::registry::RegistryArgs;
use crate::args::space;
use crate::environment::Environment;
use crate::failure::Failure;

/// Where the store is, how large it may be, and how registries are reached.
#[derive(Debug, Default, Args)]
pub struct GlobalArgs {
    /// Directory of the store [env: RBUILD_ROOT] [default: /var/lib/rbuild for root, else
    /// $XDG_DATA_HOME/rbuild]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub root: Option<PathBuf>,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
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
    /// How the engine is set up for a command whose line names these images.
    pub fn engine_options(
        &self,
        environment: &Environment,
        images: &[String],
    ) -> Result<EngineOptions, Failure> {
        let mut options = EngineOptions::new(self.store(environment)?);
        options.registry = self.registry.options_for(environment, images)?;
        options.offline = self.offline(environment)?;
        options.limits = self.limits(Some(environment))?;
        Ok(options)
    }

    /// Whether no server is asked.
    pub fn offline(&self, environment: &Environment) -> Result<bool, Failure> {
        Ok(self.offline || environment.offline()?)
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
}

#[cfg(test)]
mod tests {
    use rbuild::Space;

    use super::*;

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
}
