//! `SOURCE_DATE_EPOCH`: seconds, or the name of something that has a time.
//!
//! The plan touches nothing, so a name becomes a time in two steps: [`epoch_source`] says what is
//! named, and whoever can ask it puts the seconds in the place of the name.

use rbuild_parser::ast::{self, Dockerfile, Instruction, InstructionKind, Stage, Text};
use rbuild_types::{Diagnostic, Platform, Span};

use super::environment::{Globals, Variables};
use super::stages;
use crate::named_context::NamedContext;
use crate::op::Source;
use crate::options::Options;
use crate::remote::{self, Remote};

/// The build argument.
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What stands in the place of seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// The build context.
    Context,
    /// A context that goes by a name.
    Named {
        /// Its whole name.
        name: String,
        /// Where it is from; a directory and an image have no time.
        source: Option<Source>,
    },
    /// What a stage adds, which does nothing else.
    Stage(Source),
}

enum Epoch {
    Seconds(i64),
    Of(Box<EpochSource>),
}

/// What has to be asked for the time of a build; `None` when nothing has. A build for several
/// platforms has one time: that of the first.
pub fn epoch_source(
    dockerfile: &Dockerfile,
    options: &Options,
) -> Result<Option<EpochSource>, Diagnostic> {
    if dockerfile.stages.is_empty() {
        return Ok(None);
    }
    let platforms = super::platforms(options);
    let platform = platforms.first().unwrap_or(&options.build_platform);
    let target = stages::target(dockerfile, options)?;
    let globals = Globals::new(dockerfile, options, platform, target)?;
    Ok(match epoch(dockerfile, options, platform, &globals)? {
        Some(Epoch::Of(source)) => Some(*source),
        Some(Epoch::Seconds(_)) | None => None,
    })
}

/// The time in seconds, from `--build-arg` or the default of a global `ARG`. What nobody asked has
/// none.
pub(super) fn source_date_epoch(
    dockerfile: &Dockerfile,
    options: &Options,
    platform: &Platform,
    globals: &Globals,
) -> Result<Option<i64>, Diagnostic> {
    Ok(match epoch(dockerfile, options, platform, globals)? {
        Some(Epoch::Seconds(seconds)) => Some(seconds),
        Some(Epoch::Of(_)) | None => None,
    })
}

fn epoch(
    dockerfile: &Dockerfile,
    options: &Options,
    platform: &Platform,
    globals: &Globals,
) -> Result<Option<Epoch>, Diagnostic> {
    let of = |source| Ok(Some(Epoch::Of(Box::new(source))));
    let given = options.build_args.get(SOURCE_DATE_EPOCH).map(String::as_str);
    let value = match given.or_else(|| globals.variables.get(SOURCE_DATE_EPOCH)) {
        None | Some("") => return Ok(None),
        Some("context") => return of(EpochSource::Context),
        Some(value) => value,
    };
    if let Ok(seconds) = value.parse() {
        return Ok(Some(Epoch::Seconds(seconds)));
    }
    if let Some((name, context)) = options.contexts.find(value, platform) {
        let source = match context {
            NamedContext::Remote(remote) => Some(remote.source.clone()),
            NamedContext::Local | NamedContext::Image { .. } | NamedContext::Scratch => None,
        };
        return of(EpochSource::Named { name: name.to_owned(), source });
    }
    let is_meant = |stage: &&Stage| {
        stage.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(value))
    };
    if let Some(stage) = dockerfile.stages.iter().find(is_meant) {
        let escape = dockerfile.directives.escape;
        let source = of_stage(stage, escape, options, globals)?;
        return of(EpochSource::Stage(source));
    }
    let message = format!("invalid {SOURCE_DATE_EPOCH}: {value}");
    Err(wrong(span(dockerfile), message).help(
        "a whole number of seconds since 1970, `context`, or the name of a context or of a stage \
         that is FROM scratch and one ADD of a URL",
    ))
}

/// The source of a stage that only fetches: `FROM scratch`, any `ARG`, one remote `ADD`.
fn of_stage(
    stage: &Stage,
    escape: char,
    options: &Options,
    globals: &Globals,
) -> Result<Source, Diagnostic> {
    let expand = |text: &Text, variables: &Variables| {
        variables.expand(text, escape, &|span| span).map(|expanded| expanded.text)
    };
    // Not the stage's own business: it is what is looked for.
    let mut variables = Variables::default();
    for name in globals.variables.names().filter(|name| *name != SOURCE_DATE_EPOCH) {
        variables.set(name, globals.variables.get(name).unwrap_or_default());
    }
    if expand(&stage.base, &variables)? != "scratch" {
        let message = format!("{SOURCE_DATE_EPOCH} stage must use FROM scratch");
        return Err(wrong(stage.base.span, message));
    }
    let one = || format!("{SOURCE_DATE_EPOCH} stage must contain exactly one remote ADD");
    let mut found = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Arg { args } => {
                for arg in args {
                    let name = expand(&arg.name, &variables)?;
                    let value = match (options.build_args.get(&name), &arg.default) {
                        (Some(value), _) => value.clone(),
                        (None, Some(default)) => expand(default, &variables)?,
                        (None, None) => continue,
                    };
                    variables.set(&name, &value);
                }
            }
            InstructionKind::Add(add) => {
                let source = of_add(instruction, add, &|text| expand(text, &variables))?;
                if found.replace(source).is_some() {
                    return Err(wrong(instruction.span, one()));
                }
            }
            _ => {
                let keyword = instruction.keyword.value.to_uppercase();
                let message = format!(
                    "{SOURCE_DATE_EPOCH} stage does not meet source-only requirements: \
                     unsupported {keyword} instruction"
                );
                return Err(wrong(instruction.span, message));
            }
        }
    }
    found.ok_or_else(|| wrong(stage.span, one()))
}

fn of_add(
    instruction: &Instruction,
    add: &ast::Copy,
    expand: &dyn Fn(&Text) -> Result<String, Diagnostic>,
) -> Result<Source, Diagnostic> {
    let [source] = add.sources.as_slice() else {
        let message =
            format!("{SOURCE_DATE_EPOCH} stage must contain exactly one remote ADD source");
        return Err(wrong(instruction.span, message));
    };
    let remote_error = |message| Diagnostic::error("remote", source.span, message);
    let remote: Option<Remote> = remote::parse(&expand(source)?).map_err(remote_error)?;
    let Some(remote) = remote.filter(|_| add.heredocs.is_empty()) else {
        let message =
            format!("{SOURCE_DATE_EPOCH} stage source must be a single HTTP(S) or Git ADD");
        return Err(wrong(source.span, message));
    };
    let checksum = add.flags.checksum.as_ref().map(expand).transpose()?;
    let flags = remote::Flags {
        checksum: checksum.as_deref().filter(|checksum| !checksum.is_empty()),
        keep_git_dir: add.flags.keep_git_dir.as_ref().map(|flag| flag.value),
    };
    Ok(remote::source(&remote, &flags).map_err(remote_error)?.source)
}

fn wrong(span: Span, message: String) -> Diagnostic {
    Diagnostic::error("source-date-epoch", span, message)
}

/// The `ARG` that names it, or the start of the file.
fn span(dockerfile: &Dockerfile) -> Span {
    let args = dockerfile.global_args.iter().filter_map(|one| match &one.kind {
        InstructionKind::Arg { args } => Some(args),
        _ => None,
    });
    let arg = args.flatten().find(|arg| arg.name.value == SOURCE_DATE_EPOCH);
    arg.map_or(Span::default(), |arg| arg.name.span)
}
