//! `FROM`: the state that a stage begins with.

use std::collections::HashSet;

use rbuild_types::{Diagnostic, ImageConfig, Platform, Reference, RootFs, Span};

use super::environment::Variables;
use super::settings::Settings;
use super::stage::{Layer, Origin, StageLowering, State, Trigger, is_step};
use super::stages::{Base, Found, Replaced};
use super::{Lowering, Stop, path};
use crate::graph::{Vertex, VertexId};
use crate::image_configs::ResolvedImage;
use crate::named_context::NamedContext;
use crate::op::{ContextName, Copy, CopySource, Op, Source};
use crate::remote::RemoteContext;

/// What images get that set no `PATH`, and what scratch starts with.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fields that docker writes about the container that made a layer: stale in any new image.
const STALE: [&str; 6] =
    ["container", "container_config", "docker_version", "id", "parent", "throwaway"];

/// What a stage begins with once named contexts had their say.
enum Start {
    Scratch,
    Stage(usize),
    /// The directory of a named context.
    Local(String),
    /// An image, as written after expansion.
    Image(String),
    /// The image of a named context.
    Context {
        reference: Reference,
        shown: Option<String>,
    },
    /// The files of a named context that lies elsewhere.
    Remote(String, RemoteContext),
}

/// The step that a stage begins with.
struct First {
    op: Op,
    inputs: Vec<VertexId>,
    text: String,
}

/// A root filesystem that files are taken from.
pub(super) enum Root {
    /// That of a vertex.
    Vertex(VertexId),
    /// A local directory.
    Context(ContextName),
    Empty,
}

impl<'b, 'a> StageLowering<'b, 'a> {
    /// Takes over the base of stage `index` and its environment; triggers still wait.
    pub(super) fn begin(plan: &'b mut Lowering<'a>, index: usize) -> Result<Self, Stop> {
        let stage = &plan.dockerfile.stages[index];
        let asked = plan.stages.platform(index).cloned();
        let platform = asked.clone().unwrap_or_else(|| plan.platform.clone());
        let mut first = None;
        let state = match plan.start_of(index, &platform) {
            // Nothing is there that could be for another platform, whatever `--platform` says.
            Start::Scratch => State::scratch(plan.platform.clone()),
            Start::Stage(earlier) => {
                let state = plan.lowered[earlier].as_ref().ok_or(Stop::Needs(earlier))?;
                State::clone(state)
            }
            Start::Local(name) => {
                first = Some(First::of_directory(name));
                State::scratch(platform)
            }
            Start::Remote(name, remote) => {
                let vertex = plan.add_source(remote.source, &remote.shown, stage.base.span, index);
                first = Some(First::of_tree(name, vertex));
                State::scratch(platform)
            }
            Start::Image(name) => {
                let image = plan.image(&name, &platform, stage.base.span, index)?;
                let platform = match asked {
                    Some(asked) => asked,
                    None => plan.platform_upon(&image),
                };
                plan.warn_platform(&name, &image.platform, &platform, stage.base.span);
                first = Some(First::of_image(&image, None));
                plan.state_of(&image, platform)
            }
            Start::Context { reference, shown } => {
                let subject = shown.clone().unwrap_or_else(|| reference.to_string());
                let (name, span) = (&stage.base.value, stage.base.span);
                let image = plan.image_of(name, &subject, reference, &platform, span, index)?;
                plan.warn_platform(&subject, &image.platform, &platform, stage.base.span);
                first = Some(First::of_image(&image, shown));
                plan.state_of(&image, platform)
            }
        };
        let mut lowering = Self {
            plan,
            index,
            state,
            cmd_set: false,
            origin: Origin::File,
            here: stage.span,
            settings: Settings::default(),
            step: 0,
            steps: 0,
        };
        let bytes: usize = lowering.state.config.history.iter().map(|h| h.created_by.len()).sum();
        lowering.charge(bytes + lowering.state.variables.size())?;
        lowering.steps = usize::from(first.is_some());
        if lowering.plan.stages.replaced(index).is_none() {
            let own = stage.instructions.iter().filter(|one| is_step(one)).count();
            lowering.steps += lowering.count_trigger_steps() + own;
        }
        if let Some(First { op, inputs, text }) = first {
            let is_layer = !matches!(op, Op::Source(_));
            lowering.add_vertex(op, inputs, &text, Some(stage.span));
            if is_layer {
                lowering.history(text, Layer::Filled)?;
            }
        }
        lowering.begin_environment();
        Ok(lowering)
    }

    /// `ENV` of the base counts again over its `ARG`s, and there is always a `PATH`.
    fn begin_environment(&mut self) {
        let directory = self.state.directory();
        let config = &mut self.state.config.config;
        if self.state.platform.os == "windows" && !config.working_dir.is_empty() {
            config.working_dir = path::for_system(directory, "windows");
        }
        let has_path = config.env.iter().any(|entry| entry.starts_with("PATH="));
        if !has_path && self.state.platform.os != "windows" {
            config.env.push(DEFAULT_PATH.to_owned());
        }
        for entry in &config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            self.state.variables.set(name, value);
        }
    }
}

impl Start {
    fn of(name: String, context: NamedContext) -> Self {
        match context {
            NamedContext::Local => Self::Local(name),
            NamedContext::Scratch => Self::Scratch,
            NamedContext::Image { reference, shown } => Self::Context { reference, shown },
            NamedContext::Remote(remote) => Self::Remote(name, remote),
        }
    }
}

impl First {
    fn of_image(image: &ResolvedImage, shown: Option<String>) -> Self {
        let ResolvedImage { reference, platform, .. } = image.clone();
        let text = format!("FROM {}", shown.unwrap_or_else(|| reference.to_string()));
        Self { op: Op::Source(Source::Image { reference, platform }), inputs: Vec::new(), text }
    }

    /// A directory as a root filesystem is a copy of all that its ignore file leaves.
    fn of_directory(name: String) -> Self {
        let text = format!("FROM {name}");
        let source = CopySource::Context { context: Some(name), path: "/".to_owned() };
        Self { op: copy_of_all(source), inputs: Vec::new(), text }
    }

    /// Fetched files as a root filesystem are a copy too: a source is no layer.
    fn of_tree(name: String, vertex: VertexId) -> Self {
        let source = CopySource::Input { input: 0, path: "/".to_owned() };
        Self { op: copy_of_all(source), inputs: vec![vertex], text: format!("FROM {name}") }
    }
}

/// A new root filesystem with what `source` has.
fn copy_of_all(source: CopySource) -> Op {
    Op::Copy(Copy { into_directory: true, ..Copy::plain(vec![source], "/") })
}

impl State {
    fn scratch(platform: Platform) -> Self {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            rootfs: RootFs::default(),
            ..ImageConfig::default()
        };
        config.config.working_dir = "/".to_owned();
        if platform.os != "windows" {
            config.config.env.push(DEFAULT_PATH.to_owned());
        }
        Self::new(config, platform)
    }

    pub(super) fn of_image(image: &ResolvedImage, platform: Platform) -> Self {
        let mut config = image.config.clone();
        config.created = None;
        config.other.retain(|field, _| !STALE.contains(&field.as_str()));
        let triggers = std::mem::take(&mut config.config.on_build);
        let mut state = Self::new(config, platform);
        let is_stated = !image.config.os.is_empty() && !image.config.architecture.is_empty();
        state.base_platform = is_stated.then(|| image.config.platform());
        state.triggers = triggers.into_iter().map(|text| Trigger { text, span: None }).collect();
        state
    }

    fn new(config: ImageConfig, platform: Platform) -> Self {
        Self {
            root: None,
            base_history: config.history.len(),
            base_layers: config.rootfs.diff_ids.len(),
            config,
            variables: Variables::default(),
            args: Vec::new(),
            unset: HashSet::new(),
            platform,
            base_platform: None,
            knows_base: true,
            workdir_set: false,
            triggers: Vec::new(),
        }
    }

    /// Where relative paths start.
    pub(super) fn directory(&self) -> String {
        let directory = &self.config.config.working_dir;
        path::clean(&path::with_slashes(directory, &self.platform.os).unwrap_or_default())
    }
}

impl Lowering<'_> {
    fn start_of(&mut self, index: usize, platform: &Platform) -> Start {
        if let Some(Replaced { name, context }) = self.stages.replaced(index).cloned() {
            self.used_contexts.insert(name.clone());
            return Start::of(name, context);
        }
        match self.stages.base(index).clone() {
            Base::Scratch => Start::Scratch,
            Base::Stage(earlier) => Start::Stage(earlier),
            Base::Image(image) => match self.named(&image, platform) {
                Some((name, context)) => Start::of(name, context),
                None => Start::Image(image),
            },
        }
    }

    /// The named context that stands for an image or a `--from`.
    fn named(&mut self, name: &str, platform: &Platform) -> Option<(String, NamedContext)> {
        let (name, context) = self.options.contexts.find(name, platform)?;
        self.used_contexts.insert(name.to_owned());
        Some((name.to_owned(), context.clone()))
    }

    /// The root filesystem that `from` names in stage `index`.
    pub(super) fn root_of(
        &mut self,
        from: &str,
        index: usize,
        span: Span,
        verb: &str,
    ) -> Result<Root, Stop> {
        match self.stages.find(from, index) {
            Found::Stage(earlier) => {
                if let Some(name) = self.stages.local(earlier) {
                    let name = name.to_owned();
                    self.used_contexts.insert(name.clone());
                    return Ok(Root::Context(Some(name)));
                }
                match &self.lowered[earlier] {
                    Some(state) => Ok(state.root.map_or(Root::Empty, Root::Vertex)),
                    None => Err(Stop::Needs(earlier)),
                }
            }
            Found::NotYet(later) => Err(self.not_yet(from, later, index, span, verb).into()),
            Found::NoSuchIndex => {
                let message = format!("invalid stage index {from}");
                let help = format!("this is stage {index}; earlier ones are numbered from 0");
                Err(Diagnostic::error("stage-index", span, message).help(help).into())
            }
            Found::Image if from == "scratch" => Ok(Root::Empty),
            Found::Image => {
                let platform = self.platform.clone();
                let first = match self.named(from, &platform) {
                    Some((name, NamedContext::Local)) => return Ok(Root::Context(Some(name))),
                    Some((_, NamedContext::Scratch)) => return Ok(Root::Empty),
                    Some((_, NamedContext::Remote(remote))) => {
                        let vertex = self.add_source(remote.source, &remote.shown, span, index);
                        return Ok(Root::Vertex(vertex));
                    }
                    Some((name, NamedContext::Image { reference, shown })) => {
                        let subject = shown.clone().unwrap_or_else(|| reference.to_string());
                        let image =
                            self.image_of(&name, &subject, reference, &platform, span, index)?;
                        First::of_image(&image, shown)
                    }
                    None => First::of_image(&self.image(from, &platform, span, index)?, None),
                };
                let vertex = Vertex {
                    op: first.op,
                    inputs: Vec::new(),
                    name: first.text,
                    span: Some(span),
                    stage: self.stages.name(index).to_owned(),
                    args: Vec::new(),
                    ttl: None,
                    no_cache: false,
                };
                Ok(Root::Vertex(self.graph.add(vertex)))
            }
        }
    }

    fn not_yet(
        &self,
        from: &str,
        later: usize,
        index: usize,
        span: Span,
        verb: &str,
    ) -> Diagnostic {
        if self.stages.reaches(self.dockerfile, later, index) {
            let name = self.stages.name(index);
            let message = format!("circular dependency detected on stage: {name}");
            return Diagnostic::error("circular-dependency", span, message)
                .label(self.dockerfile.stages[later].span, "uses this stage");
        }
        let message = match verb {
            "mount" => format!(
                "cannot mount from stage {from:?}, stage needs to be defined before current command"
            ),
            _ => format!(
                "cannot {verb} from stage {from:?}, it needs to be defined before current stage {:?}",
                self.stages.name(index)
            ),
        };
        Diagnostic::error("stage-order", span, message)
            .label(self.dockerfile.stages[later].span, "is defined here")
    }
}
