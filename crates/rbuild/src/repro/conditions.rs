//! The same build under other conditions.

use std::path::PathBuf;
use std::time::Duration;

use rbuild_cache::Scratch;
use rbuild_plan::NoCache;
use rbuild_types::CancelToken;

use super::context_copy;
use crate::sources::context::context_mode;
use crate::{
    BuildError, BuildRequest, ContextInput, ContextMode, Cutoff, Engine, NamedContextInput,
};

/// How long the second build waits: zip archives count in steps of two seconds.
pub(crate) const PAUSE: Duration = Duration::from_millis(2100);
/// The host name of the second build's steps.
const HOST_NAME: &str = "another-host";
/// The build argument that gives another one.
const HOST_NAME_ARGUMENT: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// What is said besides where modes of files do not count.
const UMASK: &str = ", modes by another umask";

/// The two builds.
pub(crate) struct Conditions {
    pub(crate) first: BuildRequest,
    pub(crate) second: BuildRequest,
    /// What the second has otherwise.
    pub(crate) varied: Vec<String>,
    pub(crate) host_names: (String, String),
    /// Holds the copies.
    scratch: Scratch,
}

/// Refuses what a build that is thrown away cannot have.
pub(crate) fn check(request: &BuildRequest) -> Result<(), BuildError> {
    let refused = |what: &str, why: &str| {
        let message = format!("{what} cannot be built twice: {why}");
        Err(BuildError::Request { message })
    };
    if let ContextInput::Archive(_) = request.context {
        return refused("an archive on standard input", "it can be read once; unpack it");
    }
    if !request.tags.is_empty() || !request.outputs.is_empty() {
        return refused("an image with a name or an output", "it is only compared");
    }
    if request.attestations.sbom || request.attestations.provenance.is_some() {
        return refused("an image with attestations", "they say when it was built");
    }
    if !request.cache_from.is_empty() || !request.cache_to.is_empty() {
        return refused("what comes from a cache", "both builds run every step");
    }
    if request.cutoff == Cutoff::Content {
        return refused("what is the same but for its times", "times are compared too");
    }
    Ok(())
}

impl Conditions {
    pub(crate) fn of(engine: &Engine, request: &BuildRequest) -> Result<Self, BuildError> {
        let mut first = request.clone();
        first.options.no_cache = NoCache::All;
        let mut second = first.clone();
        let mut varied = vec![format!("time ({:.1} s later)", PAUSE.as_secs_f64())];
        let given = request.options.build_args.get(HOST_NAME_ARGUMENT);
        let host_name = given.unwrap_or(&request.options.hostname).clone();
        let mut host_names = (host_name.clone(), host_name);
        if given.is_none() {
            second.options.hostname = HOST_NAME.to_owned();
            host_names.1 = HOST_NAME.to_owned();
            varied.push(format!("host name ({HOST_NAME})"));
        }
        second.jobs = Some(1);
        varied.push("parallelism (one step at a time)".to_owned());
        let scratch = engine.store.scratch("repro")?;
        Ok(Self { first, second, varied, host_names, scratch })
    }

    /// Makes the copies of the second build's contexts. Their times are those of the copying, so
    /// this comes after the pause.
    pub(crate) fn copy_contexts(&mut self, cancel: &CancelToken) -> Result<(), BuildError> {
        let mut directories: Vec<&mut PathBuf> = Vec::new();
        if let ContextInput::Directory(directory) = &mut self.second.context {
            directories.push(directory);
        }
        for input in self.second.contexts.values_mut() {
            if let NamedContextInput::Directory(directory) = input {
                directories.push(directory);
            }
        }
        if directories.is_empty() {
            return Ok(());
        }
        let mut what = "the context's files: owner, times, order in directories".to_owned();
        let io = |source| BuildError::Io { what: "copy the build context".to_owned(), source };
        for (number, directory) in directories.into_iter().enumerate() {
            let above = self.scratch.path().join(number.to_string());
            let to = above.join("context");
            fs_err::create_dir_all(&to).map_err(io)?;
            let mode = context_mode(self.first.context_mode, directory);
            if mode == ContextMode::Git {
                if self.first.context_mode.is_none() {
                    // What makes the copy a work tree too.
                    fs_err::create_dir(above.join(".git")).map_err(io)?;
                }
                if !what.contains(UMASK) {
                    what.push_str(UMASK);
                }
            }
            context_copy::copy(directory, &to, mode, cancel)?;
            *directory = to;
        }
        self.varied.push(what);
        Ok(())
    }
}
