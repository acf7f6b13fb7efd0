//! `rbuild context`: arguments.

use std::path::PathBuf;

use clap::Args;
use rbuild::{BuildRequest, DockerfileInput};

use crate::args::build;
use crate::environment::Environment;
use crate::failure::Failure;

/// Show what instructions take from the build context.
#[derive(Debug, Args)]
pub struct ContextArgs {
    /// Directory that COPY and ADD take files from
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: PathBuf,
    /// The Dockerfile [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Stage to look at, with those that it needs, instead of the last
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Value of an ARG; without `=` taken from the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// As that of `build`; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Ignore file of the context [default: as `build`]
    #[arg(long, value_name = "FILE")]
    pub ignorefile: Option<PathBuf>,
    /// Show what the ignore file leaves out and brings back, and by which rule
    #[arg(long)]
    pub ignored: bool,
    /// Every file, and not the biggest only
    #[arg(long)]
    pub no_trunc: bool,
    /// `json` for one document with everything
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

impl ContextArgs {
    /// Whether JSON is asked for.
    pub fn is_json(&self) -> Result<bool, Failure> {
        match self.format.as_deref() {
            None => Ok(false),
            Some("json") => Ok(true),
            Some(other) => Err(Failure::usage_hint(
                format!("--format {other} is not supported yet"),
                "there is --format json",
            )),
        }
    }

    /// The arguments as the engine wants them.
    pub fn request(&self, environment: &Environment) -> Result<BuildRequest, Failure> {
        let mut request = BuildRequest::new(&self.path);
        request.context = build::context_of(&self.path);
        if let Some(file) = &self.file {
            request.dockerfile = DockerfileInput::Path(file.clone());
        }
        request.options.target.clone_from(&self.target);
        request.options.build_args = build::arguments(&self.build_arg, environment)?;
        request.contexts = build::named_contexts(&self.build_context)?;
        request.ignore_file.clone_from(&self.ignorefile);
        Ok(request)
    }
}
