//! What a build would take from its contexts: without a store, a network or root.

use rbuild_parser::ast::Dockerfile;
use rbuild_plan::mount::{MountKind, MountRoot, MountSource};
use rbuild_plan::op::{Copy, CopySource, Op};
use rbuild_plan::{ImageConfigs, ImageError, Options, Plan, ResolvedImage, Vertex, lower};
use rbuild_sandbox::linux::binfmt::Emulators;
use rbuild_solver::Context;
use rbuild_solver::copy::{
    CopyError, Decisions, Input, InputKind, decisions, preview, shown_by_mount,
};
use rbuild_types::{CancelToken, Ctx, Diagnostic, Platform, Progress, Reference, Span};
use serde::Serialize;

use crate::sources::context::{self, Contexts, Opened};
use crate::sources::dockerfile::{Text, read_dockerfile};
use crate::sources::named;
use crate::{BuildError, BuildRequest, ContextInput};

/// What the instructions of a build take from its contexts.
#[derive(Debug)]
pub struct Preview {
    /// The Dockerfile's name in messages.
    pub dockerfile: String,
    /// Its text, which spans point into.
    pub source_text: String,
    /// Every `COPY`, `ADD` and bind mount of a context, in the order of the graph.
    pub instructions: Vec<Taken>,
    /// What the ignore file of the build context does.
    pub ignored: Decisions,
    /// What the Dockerfile means to say and may not.
    pub warnings: Vec<Diagnostic>,
}

/// What one instruction takes from one context.
#[derive(Debug, Clone, Serialize)]
pub struct Taken {
    /// `[stage i/n] TEXT`.
    pub name: String,
    /// Where it stands.
    #[serde(skip)]
    pub span: Option<Span>,
    /// The named context; `None` is the build context.
    pub context: Option<String>,
    /// Files, links and directories, the biggest first.
    pub selected: Vec<TakenFile>,
    /// Files and links of these.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Why it would fail.
    pub problem: Option<String>,
}

/// One path that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenFile {
    /// Absolute from the context's root.
    pub path: String,
    /// Bytes of a regular file, else 0.
    pub bytes: u64,
    /// `file`, `directory`, `link` or `special`.
    pub kind: InputKind,
}

impl TakenFile {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == InputKind::Directory
    }
}

/// Finds out what a build would take from directories.
///
/// Images are not looked at: what an instruction takes from them is not told, and variables that
/// only an image sets have no value.
///
/// # Errors
///
/// When the Dockerfile or a context cannot be read. An instruction that would fail is no error.
pub fn preview_contexts(
    request: &BuildRequest,
    progress: &dyn Progress,
    cancel: &CancelToken,
) -> Result<Preview, BuildError> {
    let ctx = Ctx::new(progress, cancel);
    let named = named::settle(request)?;
    let mut opened = match &request.context {
        ContextInput::Directory(directory) => Opened::of_directory(directory)?,
        ContextInput::None => Opened::default(),
        _ => {
            let message = "only a directory can be looked at as the context; fetch or unpack it, \
                           then give the directory";
            return Err(BuildError::Request { message: message.to_owned() });
        }
    };
    let text = read_dockerfile(request, &mut opened)?;
    let (dockerfile, diagnostics) = rbuild_parser::parse(&text.text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(wrong(text, diagnostics));
    }
    let options = named.options(request, &Emulators::default());
    let mut plan = match plan(&text, &dockerfile, &options) {
        Ok(plan) => plan,
        Err(diagnostics) => return Err(wrong(text, diagnostics)),
    };
    let contexts =
        context::open(None, request, opened.main.as_ref(), &named.directories, &text, ctx)?;
    let pool = rayon::ThreadPoolBuilder::new().build().map_err(|error| BuildError::Io {
        what: "start the thread pool".to_owned(),
        source: std::io::Error::other(error),
    })?;
    let mut instructions = Vec::new();
    for (_, vertex) in plan.graph.vertices() {
        for part in parts(&vertex.op) {
            instructions.push(taken(vertex, &part, &contexts, &pool, cancel)?);
        }
    }
    let ignored = match &contexts.main {
        Some(main) => decisions(&main.tree(), cancel).map_err(stopped)?,
        None => Decisions::default(),
    };
    let warnings = std::mem::take(&mut plan.warnings);
    let warnings = warnings.into_iter().filter(|one| one.code == "UndefinedVar").collect();
    let Text { name: dockerfile, text: source_text, .. } = text;
    Ok(Preview { dockerfile, source_text, instructions, ignored, warnings })
}

fn wrong(text: Text, diagnostics: Vec<Diagnostic>) -> BuildError {
    BuildError::Dockerfile { name: text.name, source_text: text.text, diagnostics }
}

fn plan(text: &Text, dockerfile: &Dockerfile, options: &Options) -> Result<Plan, Vec<Diagnostic>> {
    lower(&text.text, dockerfile, options, &NoConfigs)
}

/// What an instruction takes from one context.
struct Part {
    context: Option<String>,
    copy: Copy,
}

fn parts(op: &Op) -> Vec<Part> {
    match op {
        Op::Copy(copy) => {
            let mut parts: Vec<Part> = Vec::new();
            for source in &copy.sources {
                let CopySource::Context { context, .. } = source else { continue };
                match parts.iter_mut().find(|part| part.context == *context) {
                    Some(part) => part.copy.sources.push(source.clone()),
                    None => parts.push(Part {
                        context: context.clone(),
                        copy: Copy { sources: vec![source.clone()], ..copy.clone() },
                    }),
                }
            }
            parts
        }
        Op::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Bind(MountSource { root: MountRoot::Context { context }, path }) => {
                    let copy = shown_by_mount(context, path);
                    Some(Part { context: context.clone(), copy })
                }
                _ => None,
            })
            .collect(),
        Op::Mkdir(_) | Op::Source(_) | Op::Merge => Vec::new(),
    }
}

fn taken(
    vertex: &Vertex,
    part: &Part,
    contexts: &Contexts,
    pool: &rayon::ThreadPool,
    cancel: &CancelToken,
) -> Result<Taken, BuildError> {
    let context = match &part.context {
        None => contexts.main.as_ref(),
        Some(name) => contexts.named.get(name),
    };
    let tree_of = |_: &CopySource| context.map(Context::tree);
    let (inputs, problem) = match preview(&part.copy, &tree_of, pool, cancel) {
        Ok(inputs) => (inputs, None),
        Err(error @ CopyError::Cancelled) => return Err(stopped(error)),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let mut selected: Vec<TakenFile> = inputs
        .into_iter()
        .map(|Input { path, kind, size, .. }| TakenFile { path, bytes: size, kind })
        .collect();
    selected.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    // Two sources may name one file.
    selected.dedup();
    Ok(Taken {
        name: vertex.name.clone(),
        span: vertex.span,
        context: part.context.clone(),
        files: selected.iter().filter(|file| !file.is_directory()).count() as u64,
        bytes: selected.iter().map(|file| file.bytes).sum(),
        selected,
        problem,
    })
}

fn stopped(error: CopyError) -> BuildError {
    match error {
        CopyError::Cancelled => rbuild_types::Cancelled.into(),
        other => BuildError::Request { message: other.to_string() },
    }
}

/// Asks for no image.
struct NoConfigs;

impl ImageConfigs for NoConfigs {
    fn config(&self, _: &Reference, _: &Platform) -> Result<ResolvedImage, ImageError> {
        Err(ImageError::NotAsked)
    }
}
