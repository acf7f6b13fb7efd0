//! Checks: what there is to say about a Dockerfile without running anything.

use rbuild_cache::Lease;
use rbuild_parser::ast::Dockerfile;
use rbuild_parser::lint::{Rule, check_file};
use rbuild_plan::{ImageConfigs, ImageError, ResolvedImage};
use rbuild_sandbox::linux::binfmt::Emulators;
use rbuild_types::{
    CancelToken, Ctx, Diagnostic, LineIndex, Platform, Reference, ReferenceError, Silent, Span,
};

use crate::lint::{self, Lint};
use crate::sources::context::{self, Main, Opened};
use crate::sources::dockerfile::{Text, read_dockerfile};
use crate::sources::image::ImageSource;
use crate::sources::named::{self, Named};
use crate::sources::remote::RemoteSources;
use crate::{BuildError, BuildRequest, ContextInput, Engine, Pull};

/// What there is to say about a Dockerfile.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Its name in messages.
    pub name: String,
    /// Its text, which the spans of diagnostics point into.
    pub source_text: String,
    /// What was found, in the order of the file.
    pub findings: Vec<Finding>,
    /// Why it could not be built, the first to fix first.
    pub errors: Vec<Diagnostic>,
    /// Whether the first error is one of syntax.
    is_syntax: bool,
    /// Base images that nobody was asked for, so what they may set was not checked.
    pub unknown_images: Vec<String>,
}

impl Checked {
    /// The first error in BuildKit's words, and its lines.
    pub fn build_error(&self) -> Option<(String, Option<Lines>)> {
        let error = self.errors.first()?;
        let lines = LineIndex::new(&self.source_text);
        let lines = error.span().map(|span| lines_of(&lines, span));
        let message = match (self.is_syntax, lines) {
            (true, Some(Lines { start, .. })) => {
                format!("dockerfile parse error on line {start}: {}", error.message)
            }
            _ => error.message.clone(),
        };
        Some((message, lines))
    }
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The rule, what is wrong, and the exact places.
    pub diagnostic: Diagnostic,
    /// What the rule is about; warnings that are no rules of BuildKit's have none.
    pub description: Option<&'static str>,
    /// The lines of the instruction.
    pub lines: Option<Lines>,
}

/// A range of lines, both ends included, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// The first.
    pub start: usize,
    /// The last.
    pub end: usize,
}

/// Errors that the parser finds and BuildKit only when it comes to the stage.
const LATE: [&str; 2] = ["from-variable", "mount-field"];

/// Checks the target of a request, or every stage when it names none. Nothing is run or written.
///
/// Base images are looked up in the engine's store. Where the store does not know one, or there
/// is no engine, checks that would need its config are left out; with [`Pull::Always`] the
/// registry is asked, and the store keeps the answer.
pub fn check(
    request: &BuildRequest,
    engine: Option<&Engine>,
    cancel: &CancelToken,
) -> Result<Checked, BuildError> {
    let ctx = Ctx::new(&Silent, cancel);
    let Inputs { main, text, mut named, _lease } = Inputs::read(request, engine, ctx)?;
    let (dockerfile, diagnostics) = rbuild_parser::parse(&text.text);
    let (mut errors, warnings): (Vec<_>, Vec<_>) =
        diagnostics.into_iter().partition(Diagnostic::is_error);
    let is_syntax = errors.first().is_some_and(|error| !LATE.contains(&error.code));
    let mut unknown_images = Vec::new();
    let mut found = Vec::new();
    match Lint::new(&dockerfile, request) {
        // Behind errors of syntax, which come first.
        Err(error) => errors.push(error),
        Ok(mut lint) => {
            lint.add(warnings);
            lint.add(check_file(&dockerfile));
            if errors.is_empty() {
                let images = Images::new(engine, request.pull, &mut named, ctx);
                let emulators = engine.map_or_else(Emulators::of_host, Engine::emulators);
                let options = named.options(request, &emulators);
                let checked = rbuild_plan::check(&text.text, &dockerfile, &options, &images);
                cancel.check()?;
                lint.add(checked.warnings);
                if let Some(main) = &main {
                    let ignore = main.ignore_file(request, &text, ctx)?.patterns;
                    lint.add(lint::ignored_copies(&text.text, &checked.graph, &ignore));
                }
                errors.extend(checked.errors);
                unknown_images.extend(checked.unknown_images.iter().map(Reference::familiar));
            }
            if errors.is_empty() {
                errors.extend(lint.violation());
            }
            found = lint.into_found();
        }
    }
    let places = Places::new(&text.text, &dockerfile);
    let findings = found.into_iter().map(|diagnostic| places.finding(diagnostic)).collect();
    let (name, source_text) = (text.name, text.text);
    Ok(Checked { name, source_text, findings, errors, is_syntax, unknown_images })
}

/// What is read for a check.
pub(crate) struct Inputs {
    main: Option<Main>,
    pub(crate) text: Text,
    pub(crate) named: Named,
    _lease: Option<Lease>,
}

impl Inputs {
    /// Finds the Dockerfile. A context that is no directory needs an engine, to be kept in.
    pub(crate) fn read(
        request: &BuildRequest,
        engine: Option<&Engine>,
        ctx: Ctx<'_>,
    ) -> Result<Self, BuildError> {
        let named = named::settle(request)?;
        let mut lease = None;
        let mut opened = match (&request.context, engine) {
            (ContextInput::None, _) => Opened::default(),
            (ContextInput::Directory(directory), _) => Opened::of_directory(directory)?,
            (_, Some(engine)) => {
                lease = Some(engine.store.lease()?);
                let remotes = RemoteSources::new(engine, request);
                context::open_main(&remotes, request, ctx)?
            }
            (_, None) => {
                let message = "a context that is no directory needs a store to be kept in";
                return Err(BuildError::Request { message: message.to_owned() });
            }
        };
        let text = read_dockerfile(request, &mut opened)?;
        Ok(Self { main: opened.main, text, named, _lease: lease })
    }
}

/// Finds the lines of instructions.
pub(crate) struct Places {
    lines: LineIndex,
    /// The instructions in the order of the file.
    instructions: Vec<Span>,
}

impl Places {
    pub(crate) fn new(source: &str, dockerfile: &Dockerfile) -> Self {
        let own = dockerfile.stages.iter().flat_map(|stage| {
            std::iter::once(stage.span).chain(stage.instructions.iter().map(|one| one.span))
        });
        let global = dockerfile.global_args.iter().map(|instruction| instruction.span);
        Self { lines: LineIndex::new(source), instructions: global.chain(own).collect() }
    }

    /// The lines of a span.
    pub(crate) fn lines(&self, span: Span) -> Lines {
        lines_of(&self.lines, span)
    }

    /// BuildKit names the whole instruction, but for an empty line in it, which is where that
    /// instruction ends.
    fn finding(&self, diagnostic: Diagnostic) -> Finding {
        let rule = Rule::named(diagnostic.code);
        let lines = diagnostic.span().map(|span| {
            let next = self.instructions.partition_point(|one| one.start <= span.start);
            let around = next.checked_sub(1).and_then(|at| self.instructions.get(at));
            match around.filter(|one| span.start < one.end) {
                Some(around) if diagnostic.code != "NoEmptyContinuation" => self.lines(*around),
                _ => self.lines(span),
            }
        });
        Finding { description: rule.map(|rule| rule.description), lines, diagnostic }
    }
}

fn lines_of(lines: &LineIndex, span: Span) -> Lines {
    let last = span.end.saturating_sub(1).max(span.start);
    Lines { start: lines.line(span.start), end: lines.line(last) }
}

/// The configs of base images, as far as one may know them.
pub(crate) struct Images<'a> {
    source: Option<ImageSource<'a>>,
    pull: Pull,
}

impl<'a> Images<'a> {
    pub(crate) fn new(
        engine: Option<&'a Engine>,
        pull: Pull,
        named: &mut Named,
        ctx: Ctx<'a>,
    ) -> Self {
        let pull = if pull == Pull::Always { pull } else { Pull::Never };
        let layouts = std::mem::take(&mut named.layouts);
        let source = engine.map(|engine| ImageSource::new(engine, pull, ctx).with_layouts(layouts));
        Self { source, pull }
    }
}

impl ImageConfigs for Images<'_> {
    fn reference(&self, name: &str) -> Result<Reference, ReferenceError> {
        match &self.source {
            Some(source) => source.reference(name),
            None => name.parse(),
        }
    }

    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError> {
        let source = self.source.as_ref().ok_or(ImageError::NotAsked)?;
        let found = source.config(reference, platform);
        match self.pull {
            Pull::Always => found,
            // A store that does not know it is no news, and neither is one that cannot be read.
            _ => found.map_err(|_| ImageError::NotAsked),
        }
    }
}
