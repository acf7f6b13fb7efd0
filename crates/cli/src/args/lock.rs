//! `rbuild lock`: arguments.

use std::path::PathBuf;

use clap::Args;
use rbuild::{BuildRequest, DockerfileInput};

use crate::args::{build, secret, ssh};
use crate::environment::Environment;
use crate::failure::Failure;

/// Write rbuild.lock beside the Dockerfile: what its images, URLs and git references stand for.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// The build context, as that of `build`; the Dockerfile is a file
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The Dockerfile [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Stage to look at, with those that it needs, instead of all
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Platform that is built for; all of them go into one file
    #[arg(long, value_name = "PLATFORM,…", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Value of an ARG; without `=` taken from the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// As that of `build`; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Secret that a server asks for: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "SECRET")]
    pub secret: Vec<String>,
    /// Agent for git repositories, as that of `build`
    #[arg(long, value_name = "default|NAME[=PATH]")]
    pub ssh: Vec<String>,
}

impl LockArgs {
    /// The arguments as the engine wants them.
    pub fn request(&self, environment: &Environment) -> Result<BuildRequest, Failure> {
        let mut request = BuildRequest::new(&self.path);
        request.context = build::context_of(&self.path);
        if let Some(file) = &self.file {
            request.dockerfile = DockerfileInput::Path(file.clone());
        }
        let options = &mut request.options;
        options.target.clone_from(&self.target);
        options.platforms = build::platforms(&self.platform)?;
        options.build_args = build::all_arguments(&self.build_arg, environment)?;
        request.contexts = build::named_contexts(&self.build_context)?;
        request.secrets = secret::read(&self.secret, environment)?;
        request.ssh = ssh::of_request(&self.ssh, &request, environment)?;
        Ok(request)
    }
}
