//! `rbuild repro`: arguments.

use clap::Args;

use crate::args::build::BuildArgs;
use crate::args::call::Method;
use crate::failure::Failure;

/// Build twice under different conditions, and say whether both images are the same bytes.
#[derive(Debug, Args)]
#[command(
    override_usage = "rbuild repro [OPTIONS] [PATH]\n       rbuild repro [OPTIONS] URL",
    mut_arg("path", |path| path.required(false).default_value("."))
)]
pub struct ReproArgs {
    /// What both builds have in common.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Fix no times: without SOURCE_DATE_EPOCH images have that of their build
    #[arg(long)]
    pub plain: bool,
    /// One JSON document
    #[arg(long)]
    pub json: bool,
}

impl ReproArgs {
    /// Refuses what has no meaning for images that are only compared.
    pub fn check(&self) -> Result<(), Failure> {
        let build = &self.build;
        let given = [
            ("--tag", !build.tag.is_empty()),
            ("--output", !build.output.is_empty()),
            ("--push", build.push),
            ("--load", build.load),
            ("--iidfile", build.iidfile.is_some()),
            ("--metadata-file", build.metadata_file.is_some()),
            ("--cache-from", !build.cache_from.is_empty()),
            ("--cache-to", !build.cache_to.is_empty()),
            ("--cache-ttl", build.cache_ttl.is_some()),
            ("--no-cache-filter", !build.no_cache_filter.is_empty()),
            ("--jobs", build.jobs.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Failure::usage(format!(
                "{flag} is not for `rbuild repro`, which runs every step twice and only compares"
            )));
        }
        match build.call()?.method {
            Method::Build => Ok(()),
            _ => Err(Failure::usage("`rbuild repro` builds: --check and --call are not for it")),
        }
    }
}
