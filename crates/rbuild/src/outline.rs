//! What a Dockerfile offers and takes, without running anything: its stages and its parameters.

use rbuild_parser::ast::{Dockerfile, Stage};
use rbuild_sandbox::linux::binfmt::Emulators;
use rbuild_types::{CancelToken, Ctx, Diagnostic, Silent, Span};

use crate::check::{Images, Inputs, Lines, Places};
use crate::sources::dockerfile::Text;
use crate::{BuildError, BuildRequest, Engine};

/// The parameters of a target.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The text of the Dockerfile.
    pub source_text: String,
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// What a comment says of it.
    pub description: Option<String>,
    /// Build arguments.
    pub args: Vec<Parameter>,
    /// Secrets.
    pub secrets: Vec<Parameter>,
    /// SSH agents.
    pub ssh: Vec<Parameter>,
    /// Cache mounts.
    pub caches: Vec<Parameter>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The value of a build argument, given or default.
    pub value: Option<String>,
    /// What a comment says of a build argument.
    pub description: Option<String>,
    /// Whether a step fails without it.
    pub required: bool,
    /// The lines of the instruction.
    pub lines: Lines,
}

/// The stages of a Dockerfile.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The text of the Dockerfile.
    pub source_text: String,
    /// In the order of the file; the last is what is built when none is asked for.
    pub targets: Vec<Target>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What a comment says of it.
    pub description: Option<String>,
    /// What it is built upon, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// The lines of its `FROM`.
    pub lines: Lines,
}

/// Lists what the target of a request takes, with the values that it would have.
///
/// Base images are looked up as [`crate::check()`] does it.
pub fn outline(
    request: &BuildRequest,
    engine: Option<&Engine>,
    cancel: &CancelToken,
) -> Result<Outline, BuildError> {
    let ctx = Ctx::new(&Silent, cancel);
    let Inputs { text, mut named, .. } = Inputs::read(request, engine, ctx)?;
    let dockerfile = parse(&text)?;
    let images = Images::new(engine, request.pull, &mut named, ctx);
    let options = named.options(request, &Emulators::default());
    let outlined = rbuild_plan::outline(&text.text, &dockerfile, &options, &images);
    cancel.check()?;
    let found = outlined.map_err(|diagnostics| wrong(&text, diagnostics))?;
    let places = Places::new(&text.text, &dockerfile);
    let plain = |name: String, required: bool, span: Span| {
        let lines = places.lines(span);
        Parameter { name, value: None, description: None, required, lines }
    };
    let mounts = |list: Vec<rbuild_plan::OutlineMount>| -> Vec<Parameter> {
        list.into_iter().map(|one| plain(one.id, one.required, one.span)).collect()
    };
    let args = found.args.into_iter().map(|arg| Parameter {
        value: arg.value,
        description: arg.description,
        ..plain(arg.name, false, arg.span)
    });
    Ok(Outline {
        name: found.name,
        description: found.description,
        args: args.collect(),
        secrets: mounts(found.secrets),
        ssh: mounts(found.ssh),
        caches: mounts(found.caches),
        source_text: text.text,
    })
}

/// Lists the stages. Only an archive as the context needs an engine.
pub fn targets(
    request: &BuildRequest,
    engine: Option<&Engine>,
    cancel: &CancelToken,
) -> Result<Targets, BuildError> {
    let Inputs { text, .. } = Inputs::read(request, engine, Ctx::new(&Silent, cancel))?;
    let dockerfile = parse(&text)?;
    let places = Places::new(&text.text, &dockerfile);
    let target = |stage: &Stage| Target {
        name: stage.name.as_ref().map(|name| name.value.clone()),
        description: stage.doc.clone(),
        base: stage.base.value.clone(),
        platform: stage.platform.as_ref().map(|platform| platform.value.clone()),
        lines: places.lines(stage.span),
    };
    let targets = dockerfile.stages.iter().map(target).collect();
    Ok(Targets { source_text: text.text, targets })
}

fn parse(text: &Text) -> Result<Dockerfile, BuildError> {
    let (dockerfile, diagnostics) = rbuild_parser::parse(&text.text);
    let errors: Vec<_> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    match errors.is_empty() {
        true => Ok(dockerfile),
        false => Err(wrong(text, errors)),
    }
}

fn wrong(text: &Text, diagnostics: Vec<Diagnostic>) -> BuildError {
    BuildError::Dockerfile { name: text.name.clone(), source_text: text.text.clone(), diagnostics }
}
