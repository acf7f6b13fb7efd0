//! From a request to a plan: what a build does before its first step.

use std::sync::Arc;

use rbuild_parser::ast::{Dockerfile, InstructionKind};
use rbuild_parser::lint::check_file;
use rbuild_plan::op::Source;
use rbuild_plan::{Checked, EpochSource, Graph, ImageConfigs, Plan, check, epoch_source, lower};
use rbuild_types::{Ctx, Diagnostic, Event};

use crate::lint::Lint;
use crate::lock_file::Lock;
use crate::sources::context::{self, Opened};
use crate::sources::dockerfile::{Text, read_dockerfile};
use crate::sources::epoch::{self, EpochError};
use crate::sources::image::ImageSource;
use crate::sources::named::{self, Named};
use crate::sources::remote::RemoteSources;
use crate::{BuildError, BuildRequest, Engine, unused};

/// What a plan is made from.
pub(crate) struct Front<'a> {
    request: &'a BuildRequest,
    pub(crate) text: Text,
    dockerfile: Dockerfile,
    pub(crate) opened: Opened,
    pub(crate) named: Named,
    pub(crate) images: ImageSource<'a>,
    pub(crate) remotes: RemoteSources<'a>,
}

/// What stages are made from.
pub(crate) struct Looked {
    /// All their steps.
    pub(crate) graph: Graph,
    /// What else is asked for its time, if that is no context.
    pub(crate) epoch: Option<Source>,
}

impl<'a> Front<'a> {
    /// Opens the contexts, and reads the Dockerfile.
    pub(crate) fn open(
        engine: &'a Engine,
        request: &'a BuildRequest,
        ctx: Ctx<'a>,
    ) -> Result<(Self, Lint), BuildError> {
        let mut named = named::settle(request)?;
        let lock = Lock::of(request)?.map(Arc::new);
        let remotes = RemoteSources::new(engine, request).with_lock(lock.clone());
        let mut opened = context::open_main(&remotes, request, ctx)?;
        let text = read_dockerfile(request, &mut opened)?;
        ctx.report(Event::Dockerfile { name: text.name.clone(), text: text.text.clone() });
        let (dockerfile, lint) = parse(&text, request, ctx)?;
        let layouts = std::mem::take(&mut named.layouts);
        let images = ImageSource::new(engine, request.pull, ctx).with_layouts(layouts);
        let images = images.with_lock(lock);
        Ok((Self { request, text, dockerfile, opened, named, images, remotes }, lint))
    }

    /// Makes the plan, and says what there is to say of the Dockerfile.
    pub(crate) fn plan(&self, lint: &mut Lint, ctx: Ctx<'_>) -> Result<Plan, BuildError> {
        let Self { text, dockerfile, .. } = self;
        let mut options = self.named.options(self.request, &self.images.engine.emulators());
        let timed = epoch::settle(&mut options, dockerfile, &self.opened, &self.remotes, ctx)
            .map_err(|error| match error {
                EpochError::Wrong(diagnostic) => wrong(text, vec![*diagnostic]),
                EpochError::Failed(error) => *error,
            })?;
        let lowered = lower(&text.text, dockerfile, &options, &self.images);
        ctx.cancel.check()?;
        let mut plan = lowered.map_err(|diagnostics| {
            let (errors, warnings) = diagnostics.into_iter().partition(Diagnostic::is_error);
            report(lint, warnings, ctx);
            wrong(text, errors)
        })?;
        // A context that gives the time is of use.
        plan.unused_contexts.retain(|name| Some(name) != timed.as_ref());
        report(lint, std::mem::take(&mut plan.warnings), ctx);
        self.report_unused(&plan, ctx);
        Ok(plan)
    }

    /// Whether the Dockerfile gives an argument of the whole file a value.
    pub(crate) fn has_default(&self, argument: &str) -> bool {
        let args = self.dockerfile.global_args.iter().filter_map(|one| match &one.kind {
            InstructionKind::Arg { args } => Some(args),
            _ => None,
        });
        args.flatten().any(|arg| arg.name.value == argument && arg.default.is_some())
    }

    /// What all stages are made from, or those that the target of the request needs, with the
    /// configs that `images` gives.
    pub(crate) fn look(&self, images: &dyn ImageConfigs) -> Result<Looked, BuildError> {
        let Self { text, dockerfile, .. } = self;
        let options = self.named.options(self.request, &self.images.engine.emulators());
        let Checked { graph, errors, .. } = check(&text.text, dockerfile, &options, images);
        if !errors.is_empty() {
            return Err(wrong(text, errors));
        }
        let asked = epoch_source(dockerfile, &options).map_err(|error| wrong(text, vec![error]))?;
        let epoch = match asked {
            Some(EpochSource::Stage(source)) => Some(source),
            Some(EpochSource::Named { source, .. }) => source,
            Some(EpochSource::Context) | None => None,
        };
        Ok(Looked { graph, epoch })
    }

    /// Warns of what the request names and the Dockerfile does not have.
    fn report_unused(&self, plan: &Plan, ctx: Ctx<'_>) {
        let given = &self.request.options;
        let build_args = match plan.unused_build_args.as_slice() {
            [] => None,
            names => Some(unused::build_args(names, &given.build_args, &self.dockerfile)),
        };
        let unused = [
            build_args,
            unused::frontend(&given.build_args),
            unused::no_cache(&given.no_cache, &self.dockerfile),
            unused::contexts(&plan.unused_contexts, &self.dockerfile),
        ];
        for warning in unused.into_iter().flatten() {
            ctx.report(Event::Warning(warning));
        }
    }
}

fn parse(
    text: &Text,
    request: &BuildRequest,
    ctx: Ctx<'_>,
) -> Result<(Dockerfile, Lint), BuildError> {
    let (dockerfile, diagnostics) = rbuild_parser::parse(&text.text);
    let (errors, warnings): (Vec<_>, Vec<_>) =
        diagnostics.into_iter().partition(Diagnostic::is_error);
    let mut lint = Lint::new(&dockerfile, request).map_err(|error| {
        let all = errors.iter().cloned().chain([error]);
        wrong(text, all.collect())
    })?;
    for warning in lint.settled() {
        ctx.report(Event::Warning(warning.clone()));
    }
    report(&mut lint, warnings, ctx);
    report(&mut lint, check_file(&dockerfile), ctx);
    match errors.is_empty() {
        true => Ok((dockerfile, lint)),
        false => Err(wrong(text, errors)),
    }
}

/// Passes on those warnings that count.
pub(crate) fn report(lint: &mut Lint, warnings: Vec<Diagnostic>, ctx: Ctx<'_>) {
    for warning in lint.add(warnings) {
        ctx.report(Event::Warning(warning.clone()));
    }
}

/// The Dockerfile is wrong.
pub(crate) fn wrong(text: &Text, diagnostics: Vec<Diagnostic>) -> BuildError {
    BuildError::Dockerfile { name: text.name.clone(), source_text: text.text.clone(), diagnostics }
}
