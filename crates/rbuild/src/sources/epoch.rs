//! The time of a build that `SOURCE_DATE_EPOCH` takes from what the build is made from.

use rbuild_parser::ast::Dockerfile;
use rbuild_plan::{EpochSource, Options, SOURCE_DATE_EPOCH, epoch_source};
use rbuild_types::{Ctx, Diagnostic};

use super::context::Opened;
use super::remote::RemoteSources;
use crate::BuildError;

/// Why there is no time.
pub(crate) enum EpochError {
    /// The Dockerfile is wrong.
    Wrong(Box<Diagnostic>),
    /// It could not be asked for.
    Failed(Box<BuildError>),
}

/// Puts seconds in the place of a name, or nothing where what is named has no time; for stages
/// too that take the argument. Gives the named context that was asked, if it was one.
pub(crate) fn settle(
    options: &mut Options,
    dockerfile: &Dockerfile,
    opened: &Opened,
    remotes: &RemoteSources<'_>,
    ctx: Ctx<'_>,
) -> Result<Option<String>, EpochError> {
    let asked =
        epoch_source(dockerfile, options).map_err(|error| EpochError::Wrong(error.into()))?;
    let Some(asked) = asked else { return Ok(None) };
    let (name, source) = match asked {
        EpochSource::Context => (None, opened.source.clone()),
        EpochSource::Named { name, source } => (Some(name), source),
        EpochSource::Stage(source) => (None, Some(source)),
    };
    let time = match source {
        Some(source) => {
            let subject = format!("the time that {SOURCE_DATE_EPOCH} names");
            remotes
                .time(&source, &subject, ctx)
                .map_err(|error| EpochError::Failed(error.into()))?
        }
        None if name.is_none() => opened.newest,
        None => None,
    };
    let seconds = time.map(|time| time.to_string()).unwrap_or_default();
    options.build_args.insert(SOURCE_DATE_EPOCH.to_owned(), seconds);
    Ok(name)
}
