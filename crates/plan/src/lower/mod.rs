//! From syntax to plan, demand-driven: a stage is lowered when the target, directly or through
//! others, needs it. Stages only refer to earlier ones, so there is always an order; it is kept
//! on an explicit stack, because a file may chain more stages than a call stack holds.

mod arg;
mod config;
mod copy;
mod environment;
mod epoch;
mod expose;
mod from;
mod go_text;
mod images;
mod index;
mod lint;
mod mounts;
mod onbuild;
mod outline;
pub(crate) mod path;
mod run;
mod settings;
mod signal;
mod source;
mod stage;
mod stages;
mod workdir;

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use rbuild_parser::ast::{Dockerfile, InstructionKind};
use rbuild_types::{Diagnostic, Platform, Reference, Span};

pub use self::epoch::{EpochSource, SOURCE_DATE_EPOCH, epoch_source};
pub use self::outline::outline;

use self::environment::Globals;
use self::outline::Taken;
use self::stage::{StageLowering, State};
use self::stages::StageTable;
use crate::AskedDevice;
use crate::graph::Graph;
use crate::image_configs::{ImageConfigs, ResolvedImage};
use crate::options::Options;
use crate::plan::{Checked, Plan, Target};

/// Lowers the target of `dockerfile`, which was parsed from `source`, for every platform.
///
/// On failure the diagnostics are errors, the one to fix first in front, and behind them the
/// warnings up to there.
pub fn lower(
    source: &str,
    dockerfile: &Dockerfile,
    options: &Options,
    images: &dyn ImageConfigs,
) -> Result<Plan, Vec<Diagnostic>> {
    let mut lowering = start(source, dockerfile, options, images)?;
    let mut targets = Vec::new();
    for platform in platforms(options) {
        match lowering.lower(platform) {
            Ok(target) => targets.push(target),
            Err(errors) => return Err([errors, lowering.warnings].concat()),
        }
    }
    Ok(lowering.finish(targets))
}

/// Lowers the target, or every stage when none is asked for, for what there is to say about them.
pub fn check(
    source: &str,
    dockerfile: &Dockerfile,
    options: &Options,
    images: &dyn ImageConfigs,
) -> Checked {
    let mut checked = Checked::default();
    let mut lowering = match start(source, dockerfile, options, images) {
        Ok(lowering) => lowering,
        Err(errors) => return Checked { errors, ..checked },
    };
    for platform in platforms(options) {
        let told = lowering.warnings.len();
        lowering.check(platform, &mut checked.errors);
        lowering.drop_repeated(told);
    }
    let Lowering { graph, warnings, unknown_images, .. } = lowering;
    Checked { graph, warnings, unknown_images, ..checked }
}

/// The platforms to lower for, each once.
fn platforms(options: &Options) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in &options.platforms {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    if platforms.is_empty() {
        platforms.push(options.build_platform.clone());
    }
    platforms
}

/// Settles what does not depend on a platform.
fn start<'a>(
    source: &str,
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    images: &'a dyn ImageConfigs,
) -> Result<Lowering<'a>, Vec<Diagnostic>> {
    if dockerfile.stages.is_empty() {
        let span = Span::new(0, source.len());
        let message = "dockerfile contains no stages to build";
        return Err(vec![Diagnostic::error("no-stages", span, message)]);
    }
    let target = stages::target(dockerfile, options).map_err(|error| vec![error])?;
    let is_index = index::is_index(options).map_err(|error| vec![error])?;
    Ok(Lowering {
        source_date_epoch: None,
        devices: Vec::new(),
        dockerfile,
        options,
        images,
        target,
        is_index,
        platform: options.build_platform.clone(),
        globals: Globals::default(),
        lowered: Vec::new(),
        stages: StageTable::default(),
        graph: Graph::default(),
        warnings: Vec::new(),
        known_images: HashMap::new(),
        unknown_images: BTreeSet::new(),
        declared: BTreeSet::new(),
        used_contexts: BTreeSet::new(),
        arg_names: OnceCell::new(),
        taken: None,
        room: MAX_PLAN,
    })
}

/// Most bytes of environments and history texts that one plan may hold. Both repeat what came
/// before at each step, so a small file can ask for any amount; real ones stay below 1 MiB.
const MAX_PLAN: usize = 64 << 20;

/// Stages with errors after which a check goes no further: nobody reads more, and each may have
/// any number of others to go through again.
const MAX_FAILED: usize = 20;

/// Why a stage could not be lowered now.
enum Stop {
    /// The Dockerfile is wrong.
    Wrong(Box<Diagnostic>),
    /// This earlier stage is needed first.
    Needs(usize),
}

impl From<Diagnostic> for Stop {
    fn from(diagnostic: Diagnostic) -> Self {
        Stop::Wrong(Box::new(diagnostic))
    }
}

/// What all stages of one lowering share. What comes before `graph` is of one platform
/// ([`Lowering::enter`]), the rest of all.
struct Lowering<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    images: &'a dyn ImageConfigs,
    /// The stage that is the image.
    target: usize,
    /// Whether the images go into an index, so that steps have to say which they are for.
    is_index: bool,
    /// The platform of the target.
    platform: Platform,
    /// In seconds since 1970.
    source_date_epoch: Option<i64>,
    /// What `RUN --device` asks for.
    devices: Vec<AskedDevice>,
    globals: Globals,
    stages: StageTable,
    /// The final state of each stage that was lowered.
    lowered: Vec<Option<Rc<State>>>,
    graph: Graph,
    warnings: Vec<Diagnostic>,
    known_images: HashMap<(Reference, Platform), ResolvedImage>,
    /// Images that nobody was asked for.
    unknown_images: BTreeSet<Reference>,
    /// Names that some `ARG` of a trigger declared.
    declared: BTreeSet<String>,
    /// Names of `--build-context` that something stands for.
    used_contexts: BTreeSet<String>,
    /// Names of all `ARG`s in the file, once somebody asked.
    arg_names: OnceCell<HashSet<&'a str>>,
    /// What each stage takes from outside, when that is asked for.
    taken: Option<Vec<Taken>>,
    /// What is left of [`MAX_PLAN`].
    room: usize,
}

impl Lowering<'_> {
    /// Lowers the target for one platform.
    fn lower(&mut self, platform: Platform) -> Result<Target, Vec<Diagnostic>> {
        let told = self.warnings.len();
        self.enter(platform)?;
        let state = self.run(self.target)?;
        self.drop_repeated(told);
        Ok(self.target_of(&state))
    }

    /// Lowers what is to be checked for one platform, and adds what is wrong to `errors`.
    fn check(&mut self, platform: Platform, errors: &mut Vec<Diagnostic>) {
        let mut add = |found: Vec<Diagnostic>| {
            for error in found {
                // Stages that are built upon a broken one are broken in the same way.
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        };
        if let Err(found) = self.enter(platform) {
            return add(found);
        }
        let stages = match self.options.target {
            Some(_) => self.target..self.target + 1,
            None => 0..self.dockerfile.stages.len(),
        };
        let mut failed = 0;
        for stage in stages {
            if let Err(found) = self.run(stage) {
                add(found);
                failed += 1;
            }
            if failed == MAX_FAILED {
                break;
            }
        }
    }

    /// Begins anew for a platform: what its values can change is settled again.
    fn enter(&mut self, platform: Platform) -> Result<(), Vec<Diagnostic>> {
        let (dockerfile, options) = (self.dockerfile, self.options);
        self.warnings.extend(lint::defaults(dockerfile, options, &platform, self.target));
        self.globals = Globals::new(dockerfile, options, &platform, self.target)
            .map_err(|error| vec![error])?;
        let warnings = &mut self.warnings;
        self.stages = StageTable::new(dockerfile, options, &platform, &self.globals, warnings)?;
        self.source_date_epoch =
            epoch::source_date_epoch(dockerfile, options, &platform, &self.globals)
                .map_err(|error| vec![error])?;
        self.lowered = vec![None; dockerfile.stages.len()];
        self.platform = platform;
        Ok(())
    }

    /// Most of what is to be said holds for every platform: once is enough. The first `told`
    /// warnings are those of the platforms before.
    fn drop_repeated(&mut self, told: usize) {
        let new = self.warnings.split_off(told);
        let known: HashSet<_> = self.warnings.iter().map(identity).collect();
        let fresh: Vec<_> =
            new.into_iter().filter(|warning| !known.contains(&identity(warning))).collect();
        self.warnings.extend(fresh);
    }

    /// Lowers stage `target` and all that it needs.
    fn run(&mut self, target: usize) -> Result<Rc<State>, Vec<Diagnostic>> {
        let mut stack = vec![target];
        while let Some(&index) = stack.last() {
            if self.lowered[index].is_some() {
                stack.pop();
                continue;
            }
            let known = self.stages.needs(index).iter();
            let missing: Vec<_> = known.copied().filter(|i| self.lowered[*i].is_none()).collect();
            if !missing.is_empty() {
                stack.extend(missing.into_iter().rev());
                continue;
            }
            let warnings = self.warnings.len();
            match StageLowering::lower(self, index) {
                Ok(state) => self.lowered[index] = Some(Rc::new(state)),
                // A trigger of a base image named a stage. What this attempt added to the graph
                // is found again by the next one.
                Err(Stop::Needs(earlier)) => {
                    self.warnings.truncate(warnings);
                    stack.push(earlier);
                }
                Err(Stop::Wrong(diagnostic)) => return Err(vec![*diagnostic]),
            }
        }
        Ok(self.lowered[target].clone().expect("the stack is empty once the target is lowered"))
    }

    fn target_of(&self, state: &State) -> Target {
        let mut config = state.config.clone();
        let labels = self.options.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
        config.config.labels.extend(labels);
        config.created = None;
        // With no platform asked for, the image stays what its base says it is; else that fills in
        // what was not asked for.
        let own = config.platform();
        let states = !config.os.is_empty() && !config.architecture.is_empty();
        let asked = self.platform.clone();
        let platform = if self.options.platforms.is_empty() && states {
            own
        } else if (&asked.os, &asked.architecture) == (&own.os, &own.architecture) {
            let (variant, os_version) = (own.variant, own.os_version);
            Platform {
                variant: asked.variant.or(variant),
                os_version: asked.os_version.or(os_version),
                ..asked
            }
        } else {
            asked
        };
        config.os = platform.os.clone();
        config.architecture = platform.architecture.clone();
        config.variant = platform.variant.clone();
        config.os_version = platform.os_version.clone();
        Target {
            vertex: state.root,
            config,
            base_history: state.base_history,
            base_layers: state.base_layers,
            platform,
            stage_name: self.stages.name(self.target).to_owned(),
            source_date_epoch: self.source_date_epoch,
        }
    }

    fn finish(self, targets: Vec<Target>) -> Plan {
        Plan {
            targets,
            is_index: self.is_index,
            unused_build_args: self.unused_build_args(),
            unused_contexts: self.unused_contexts(),
            graph: self.graph,
            warnings: self.warnings,
            devices: self.devices,
        }
    }

    /// What is for one platform may well be there for another build.
    fn unused_contexts(&self) -> Vec<String> {
        let names = self.options.contexts.names();
        names
            .filter(|name| !name.contains("::") && !self.used_contexts.contains(*name))
            .map(str::to_owned)
            .collect()
    }

    /// Whether some `ARG` of the file has that name.
    fn has_arg(&self, name: &str) -> bool {
        let names = self.arg_names.get_or_init(|| arg_names(self.dockerfile));
        names.contains(name)
    }

    fn unused_build_args(&self) -> Vec<String> {
        let names = self.options.build_args.keys();
        names
            .filter(|name| !self.has_arg(name) && !self.declared.contains(*name))
            .filter(|name| !environment::is_known(name))
            .cloned()
            .collect()
    }
}

/// What makes two warnings the same one.
fn identity(warning: &Diagnostic) -> (&'static str, Option<Span>, &str) {
    (warning.code, warning.span(), &warning.message)
}

fn arg_names(dockerfile: &Dockerfile) -> HashSet<&str> {
    let in_stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let args = in_stages.chain(&dockerfile.global_args).filter_map(|one| match &one.kind {
        InstructionKind::Arg { args } => Some(args),
        _ => None,
    });
    args.flatten().map(|arg| arg.name.value.as_str()).collect()
}
