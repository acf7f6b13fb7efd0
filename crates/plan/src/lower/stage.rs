//! One stage on its way: its state, and the steps that the instructions have in common.

use std::collections::HashSet;

use rbuild_parser::ast::{Instruction, InstructionKind, Text};
use rbuild_parser::lint::check_stage;
use rbuild_parser::lint::rules::UNDEFINED_VAR;
use rbuild_parser::suggest;
use rbuild_types::{Diagnostic, History, ImageConfig, Platform, Span};

use super::environment::Variables;
use super::settings::Settings;
use super::{Lowering, Stop, index, path};
use crate::graph::{Vertex, VertexId};
use crate::mount::MountKind;
use crate::op::Op;
use crate::options::NoCache;
use crate::url::without_passwords;

/// What a stage is at some line, and what a stage built upon it begins with.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The vertex whose root filesystem it has.
    pub(super) root: Option<VertexId>,
    /// The image's config if the build ended here.
    pub(super) config: ImageConfig,
    /// What the build sees: `ENV` and `ARG`, the last one wins.
    pub(super) variables: Variables,
    /// `ARG`s so far, those of the stages below too, with their values if they have one.
    pub(super) args: Vec<(String, Option<String>)>,
    /// Names of those without a value: they are declared, though they are no variables.
    pub(super) unset: HashSet<String>,
    /// The platform of the stage.
    pub(super) platform: Platform,
    /// What the base image is for, which need not be what was asked for.
    pub(super) base_platform: Option<Platform>,
    /// Whether the base image's config is known, which it need not be for checks.
    pub(super) knows_base: bool,
    /// History items that came with the base image.
    pub(super) base_history: usize,
    /// Diff ids that came with the base image.
    pub(super) base_layers: usize,
    /// Whether a `WORKDIR` was seen.
    pub(super) workdir_set: bool,
    /// What `ONBUILD` left for the next stage or image.
    pub(super) triggers: Vec<Trigger>,
}

/// One `ONBUILD` instruction that waits.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    /// Its text, as the image config holds it.
    pub(super) text: String,
    /// The `ONBUILD` in this file; missing when it came with an image.
    pub(super) span: Option<Span>,
}

/// Where the instruction that is being lowered stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// In the file.
    File,
    /// In a trigger; `place` is what to point at.
    Trigger { place: Span },
}

/// Whether an instruction made a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// No.
    Empty,
    /// Yes.
    Filled,
}

/// What a vertex is reckoned at beside its texts, so that many cheap ones are not free.
const VERTEX: usize = 1 << 10;

/// The comment that BuildKit puts on what an instruction made; tools look for it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Lowers the instructions of one stage in order.
pub(super) struct StageLowering<'b, 'a> {
    pub(super) plan: &'b mut Lowering<'a>,
    pub(super) index: usize,
    pub(super) state: State,
    /// Whether `CMD` was seen in this stage.
    pub(super) cmd_set: bool,
    pub(super) origin: Origin,
    /// What to point at when nothing better is known: the instruction.
    pub(super) here: Span,
    /// What comments set for the current instruction.
    pub(super) settings: Settings,
    /// Steps so far, and in all.
    pub(super) step: usize,
    pub(super) steps: usize,
}

impl<'b, 'a> StageLowering<'b, 'a> {
    /// Lowers stage `index`; the stages it is known to need are done.
    pub(super) fn lower(plan: &'b mut Lowering<'a>, index: usize) -> Result<State, Stop> {
        let dockerfile = plan.dockerfile;
        let stage = &dockerfile.stages[index];
        plan.warnings.extend(check_stage(stage));
        let mut lowering = Self::begin(plan, index)?;
        if lowering.plan.stages.replaced(index).is_some() {
            return Ok(lowering.state);
        }
        lowering.run_triggers()?;
        for instruction in &stage.instructions {
            lowering.instruction(instruction)?;
        }
        Ok(lowering.state)
    }

    /// Lowers one instruction, from the file or from a trigger.
    pub(super) fn instruction(&mut self, instruction: &Instruction) -> Result<(), Stop> {
        self.here = self.place(instruction.span);
        self.settings = Settings::of(instruction, self.here, &mut self.plan.warnings)?;
        match &instruction.kind {
            InstructionKind::Add(copy) => self.copy(instruction, copy),
            InstructionKind::Arg { args } => Ok(self.arg(args)?),
            InstructionKind::Cmd { command } => Ok(self.cmd(command)?),
            InstructionKind::Copy(copy) => self.copy(instruction, copy),
            InstructionKind::Entrypoint { command } => Ok(self.entrypoint(command)?),
            InstructionKind::Env { pairs } => Ok(self.env(pairs)?),
            InstructionKind::Expose { ports } => Ok(self.expose(ports)?),
            InstructionKind::Healthcheck(check) => Ok(self.healthcheck(check)?),
            InstructionKind::Label { pairs } => Ok(self.label(pairs)?),
            InstructionKind::Maintainer { name } => Ok(self.maintainer(name)?),
            InstructionKind::Onbuild { trigger } => Ok(self.onbuild(trigger)?),
            InstructionKind::Run(run) => self.run(instruction, run),
            InstructionKind::Shell { argv } => Ok(self.shell(argv)?),
            InstructionKind::Stopsignal { signal } => Ok(self.stopsignal(signal)?),
            InstructionKind::User { user } => Ok(self.user(user)?),
            InstructionKind::Volume { paths } => Ok(self.volume(paths)?),
            InstructionKind::Workdir { path } => Ok(self.workdir(instruction, path)?),
        }
    }

    /// Where in the file a span of the current instruction is to be shown.
    pub(super) fn place(&self, span: Span) -> Span {
        self.origin.place(span)
    }

    /// Expands one word in the environment of this line.
    pub(super) fn expand(&mut self, text: &Text) -> Result<String, Diagnostic> {
        let origin = self.origin;
        let escape = self.plan.dockerfile.directives.escape;
        let place = |span| origin.place(span);
        let expanded = self.state.variables.expand(text, escape, &place)?;
        self.warn_undefined(text.span, &expanded.unset);
        self.check_nul(&expanded.text, text.span)?;
        Ok(expanded.text)
    }

    /// Refuses what no file name, argument or variable can hold.
    pub(super) fn check_nul(&self, text: &str, span: Span) -> Result<(), Diagnostic> {
        match text.contains('\0') {
            true => Err(Diagnostic::error("nul", self.place(span), "holds a NUL byte")),
            false => Ok(()),
        }
    }

    /// A path of the stage's system with slashes.
    pub(super) fn with_slashes(&self, path: String, span: Span) -> Result<String, Diagnostic> {
        match path::with_slashes(&path, &self.state.platform.os) {
            Some(slashed) => Ok(slashed.into_owned()),
            None => {
                let message = format!("{path:?} is not on the system drive (C:)");
                Err(Diagnostic::error("drive", self.place(span), message))
            }
        }
    }

    /// Expands a text into words.
    pub(super) fn expand_words(&mut self, text: &Text) -> Result<Vec<String>, Diagnostic> {
        let origin = self.origin;
        let escape = self.plan.dockerfile.directives.escape;
        let place = |span| origin.place(span);
        let (words, unset) = self.state.variables.expand_words(text, escape, &place)?;
        self.warn_undefined(text.span, &unset);
        Ok(words)
    }

    /// Warns of variables that are neither set nor declared.
    pub(super) fn warn_undefined(&mut self, span: Span, unset: &[String]) {
        for name in unset {
            if self.state.unset.contains(name) {
                continue;
            }
            let mut message = format!("Usage of undefined variable '${name}'");
            let near = suggest(name, self.state.variables.names());
            // A base image that is not known may set it: only what is sure to be a slip counts.
            let sure = near.is_some_and(|near| is_slip(name, near)) || self.plan.has_arg(name);
            if !self.state.knows_base && !sure {
                continue;
            }
            if let Some(meant) = near {
                message.push_str(&format!(" (did you mean ${meant}?)"));
            }
            self.plan.warnings.push(UNDEFINED_VAR.warning(self.place(span), message));
        }
    }

    /// Adds an item to the history.
    pub(super) fn history(&mut self, created_by: String, layer: Layer) -> Result<(), Diagnostic> {
        self.charge(created_by.len() + if layer == Layer::Filled { VERTEX } else { 0 })?;
        self.state.config.history.push(History {
            created: None,
            created_by,
            author: String::new(),
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: layer == Layer::Empty,
        });
        Ok(())
    }

    /// Takes `bytes` of what the whole plan may hold.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Diagnostic> {
        match self.plan.room.checked_sub(bytes) {
            Some(room) => {
                self.plan.room = room;
                Ok(())
            }
            None => {
                let message = "the environments and history texts of all steps grow too large";
                Err(Diagnostic::error("too-large", self.here, message))
            }
        }
    }

    /// The latest time that what a step makes may have. `SOURCE_DATE_EPOCH` is often that of the
    /// newest commit: only who asks for it runs everything anew when it moves.
    pub(super) fn latest(&self, of_process: bool) -> Option<i64> {
        let rewrites = self.plan.options.rewrite_timestamps.unwrap_or(!of_process);
        self.plan.source_date_epoch.filter(|_| rewrites)
    }

    /// The inputs of a step that changes the root filesystem.
    pub(super) fn inputs(&self) -> Inputs {
        Inputs { has_root: self.state.root.is_some(), list: self.state.root.into_iter().collect() }
    }

    /// Adds the vertex of an instruction and makes it the stage's root filesystem.
    pub(super) fn change_root(&mut self, instruction: &Instruction, op: Op, inputs: Inputs) {
        let text = &instruction.text;
        let keyword = text.find(|letter: char| letter.is_whitespace()).unwrap_or(text.len());
        let upper = text[..keyword].to_uppercase();
        let secrets = secret_variables(&op);
        let mut text =
            format!("{upper}{}", self.state.variables.display(&text[keyword..], &secrets));
        if matches!(instruction.kind, InstructionKind::Add(_)) {
            text = without_passwords(&text);
        }
        if let InstructionKind::Run(run) = &instruction.kind
            && let [heredoc] = run.heredocs.as_slice()
        {
            text.push_str(&format!(" ({})", summary(&heredoc.body.value)));
        }
        let span = match self.origin {
            Origin::File => Some(instruction.span),
            Origin::Trigger { place } => {
                text.insert_str(0, "ONBUILD ");
                Some(place)
            }
        };
        self.add_vertex(op, inputs.list, &text, span);
    }

    /// Adds a vertex and makes it the stage's root filesystem. A linked layer is made upon
    /// nothing, and a second vertex lays it upon what is there.
    pub(super) fn add_vertex(
        &mut self,
        op: Op,
        inputs: Vec<VertexId>,
        text: &str,
        span: Option<Span>,
    ) {
        self.step += 1;
        let width = self.steps.to_string().len();
        let label = self.plan.stages.label(self.index);
        let platform = match self.plan.is_index {
            true => index::prefix(&self.state.platform, &self.state.variables),
            false => String::new(),
        };
        let name = format!("[{platform}{label}{:width$}/{}] {text}", self.step, self.steps);
        let stage = self.plan.stages.name(self.index).to_owned();
        let no_cache = match &self.plan.options.no_cache {
            NoCache::Off => false,
            NoCache::All => true,
            NoCache::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(&stage)),
        };
        let below = self.state.root.filter(|_| matches!(&op, Op::Copy(copy) if copy.link));
        let args = match op {
            Op::Run(_) => self.state.args.iter().map(|(name, _)| name.clone()).collect(),
            _ => Vec::new(),
        };
        let mut vertex =
            Vertex { op, inputs, name, span, stage, args, ttl: self.settings.ttl, no_cache };
        if let Some(below) = below {
            let layer = self.plan.graph.add(vertex.clone());
            let name = format!("{} (merge)", vertex.name);
            vertex = Vertex { op: Op::Merge, inputs: vec![below, layer], name, ..vertex };
        }
        self.state.root = Some(self.plan.graph.add(vertex));
    }
}

impl Origin {
    pub(super) fn place(self, span: Span) -> Span {
        match self {
            Origin::File => span,
            Origin::Trigger { place } => place,
        }
    }
}

/// The inputs of a vertex as they are collected.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) has_root: bool,
    list: Vec<VertexId>,
}

impl Inputs {
    /// The number of the input `vertex`, which is never that of the root.
    pub(super) fn number(&mut self, vertex: VertexId) -> usize {
        let first = usize::from(self.has_root);
        match self.list[first..].iter().position(|known| *known == vertex) {
            Some(at) => first + at,
            None => {
                self.list.push(vertex);
                self.list.len() - 1
            }
        }
    }
}

/// Whether a name is another one misspelt, and not one more of its kind: `PAHT` is `PATH`, but
/// `GOPATH` is not.
fn is_slip(name: &str, near: &str) -> bool {
    match name.len().abs_diff(near.len()) {
        0 => name.len() >= 4,
        1 => name.len() >= 6,
        _ => false,
    }
}

/// The variables that a process gets secrets in.
fn secret_variables(op: &Op) -> Vec<&str> {
    let Op::Run(run) = op else { return Vec::new() };
    let variables = run.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Secret(secret) => secret.env.as_deref(),
        _ => None,
    });
    variables.collect()
}

/// The first line of a here-document.
fn summary(body: &str) -> String {
    let body = body.trim();
    match body.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end()),
        None => body.to_owned(),
    }
}

/// Whether an instruction makes a vertex, for `[i/n]`.
pub(super) fn is_step(instruction: &Instruction) -> bool {
    matches!(
        instruction.kind,
        InstructionKind::Add(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Run(_)
            | InstructionKind::Workdir { .. }
    )
}
