//! One build, from the request to the image.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use rbuild_cache::Store;
use rbuild_plan::Plan;
use rbuild_solver::{Exports, FinishedLayers, Policy, Solution, StepNetworks, World, solve};
use rbuild_types::{CancelToken, Ctx, Event, Progress, Reference, StepId};

use crate::attest::{Invocation, Made, attest};
use crate::devices::CdiDevices;
use crate::engine::random_id;
use crate::front::{Front, report, wrong};
use crate::lint::{Lint, ignored_copies};
use crate::remote_cache::{Caches, cache_mount_ids, with_caches};
use crate::sources::context::{self, Contexts};
use crate::sources::dockerfile::Text;
use crate::sources::image::ImageSource;
use crate::sources::remote::RemoteSources;
use crate::step_network::OfBuild;
use crate::{
    BuildError, BuildRequest, Built, ContextInput, Engine, Export, Output, Packaging, StepSummary,
    assemble, export,
};

impl Engine {
    /// Builds, and returns when the image is in the store and all outputs are written.
    ///
    /// # Errors
    ///
    /// [`BuildError::Dockerfile`] and [`BuildError::Step`] point into the Dockerfile. Whatever was
    /// finished before an error stays in the cache; no name was moved.
    pub fn build(
        &self,
        request: &BuildRequest,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Built, BuildError> {
        let summary = Summary::new(progress);
        let ctx = Ctx::new(&summary, cancel);
        let invocation = Invocation::begin()?;
        let tags = self.tags(request)?;
        if let Some(message) = request.resources.problem() {
            return Err(BuildError::Request { message });
        }
        let network = request.network.as_ref().map(|name| OfBuild::find(self, name)).transpose()?;
        let _lease = self.store.lease()?;
        let (front, mut lint) = Front::open(self, request, ctx)?;
        let plan = front.plan(&mut lint, ctx)?;
        let Front { text, opened, named, images, remotes, .. } = &front;
        let devices = self.devices(text, request, &plan, &mut lint, ctx)?;
        let (directories, main) = (&named.directories, opened.main.as_ref());
        let contexts = context::open(Some(&self.store), request, main, directories, text, ctx)?;
        if let Some(context) = &contexts.main {
            report(&mut lint, ignored_copies(&text.text, &plan.graph, &context.ignore), ctx);
        }
        if let Some(violation) = lint.violation() {
            return Err(wrong(text, vec![violation]));
        }
        export::check(request, &plan, ctx)?;
        let ids = &cache_mount_ids(&plan.graph);
        let done = with_caches(self, request, ids, ctx, |caches| {
            let (devices, network, contexts) = (&devices, network.as_ref(), &contexts);
            let outside = Outside { contexts, images, remotes, devices, network, caches };
            let solution = export::ahead(self, request, &tags, ctx, |finished| {
                self.solve(text, &outside, request, &plan, finished, ctx)
            })?;
            let (cached, executed) = (solution.cached, solution.executed);
            let mut product =
                assemble::product(&plan, solution, request, images, caches.exports, ctx)?;
            let made = Made { plan: &plan, tags: &tags, invocation: &invocation };
            let told = attest(self, request, &front, &made, &mut product, ctx)?;
            let mut exported = None;
            for wanted in &request.outputs {
                let left = export::write(self, wanted, request, &product, &tags, images, ctx)?;
                exported = left.or(exported);
            }
            let mut built = assemble::publish(self, &product, request, &tags, ctx)?;
            built.exported = exported;
            Ok((built, told, cached, executed))
        })?;
        let ((built, provenance, cached, executed), traffic) = done;
        self.store.records().flush_used()?;
        self.store.sync()?;
        if let Some(error) = self.store.room_failure() {
            let message = format!("the store cannot be kept to its limits: {error}");
            ctx.report(Event::Notice { message });
        }
        let uses_caches = !(request.cache_from.is_empty() && request.cache_to.is_empty());
        if uses_caches {
            ctx.report(Event::CacheTraffic(traffic));
        }
        let cache_traffic = uses_caches.then_some(traffic);
        let steps = summary.finish();
        Ok(Built { image: Some(built), cached, executed, cache_traffic, steps, provenance })
    }

    /// The instruction graph of a build as Graphviz text.
    ///
    /// # Errors
    ///
    /// As [`Engine::build`], as far as it gets before the first step.
    pub fn graph(
        &self,
        request: &BuildRequest,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<String, BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let _lease = self.store.lease()?;
        let (front, mut lint) = Front::open(self, request, ctx)?;
        let plan = front.plan(&mut lint, ctx)?;
        Ok(rbuild_plan::dot(&plan))
    }

    /// The devices that steps ask for, all of them allowed.
    fn devices(
        &self,
        text: &Text,
        request: &BuildRequest,
        plan: &Plan,
        lint: &mut Lint,
        ctx: Ctx<'_>,
    ) -> Result<CdiDevices, BuildError> {
        let directories = &self.options.cdi_directories;
        let settled = CdiDevices::settle(&plan.devices, directories, &request.options.allow);
        let (devices, warnings) = settled.map_err(|errors| wrong(text, errors))?;
        report(lint, warnings, ctx);
        Ok(devices)
    }

    fn solve(
        &self,
        text: &Text,
        outside: &Outside<'_>,
        request: &BuildRequest,
        plan: &Plan,
        finished: Option<&dyn FinishedLayers>,
        ctx: Ctx<'_>,
    ) -> Result<Solution, BuildError> {
        let Outside { contexts, images, remotes, devices, network, caches } = *outside;
        let log_directory = random_id()?[..16].to_owned();
        self.store.keep_logs(&log_directory)?;
        let helper = self.helper();
        let resolv_conf = self.resolv_conf();
        let world = World {
            store: &self.store,
            pool: self.pool()?,
            images,
            remotes,
            imports: caches.imports,
            exports: caches.exports.map(|exports| exports as &dyn Exports),
            devices,
            context: contexts.main.as_ref(),
            named: &contexts.named,
            helper: &helper,
            network: network.map(|network| network as &dyn StepNetworks),
            resolv_conf: &resolv_conf,
            secrets: &request.secrets,
            ssh: &request.ssh,
            resources: &request.resources,
            emulators: &self.emulators(),
            ttl: request.cache_ttl,
            cutoff: request.cutoff,
            project: &project(&self.store, request, &text.name),
            log_directory: &log_directory,
            finished,
        };
        let policy = Policy {
            jobs: request.jobs.unwrap_or_else(default_jobs),
            layers: true,
            bytes: request.outputs.iter().any(|wanted| export::needs_bytes(&wanted.output)),
            root: is_kept(request)
                || request.packaging != Packaging::Each
                || request.attestations.sbom
                || request.outputs.iter().any(|wanted| export::needs_root(&wanted.output)),
        };
        let targets: Vec<_> = plan.targets.iter().map(|target| target.vertex).collect();
        let solved = solve(&plan.graph, &targets, world, &policy, ctx)
            .map_err(|error| BuildError::of_solve(error, &text.name, &text.text));
        // Also after a failure: what was hashed need not be hashed again.
        contexts.save()?;
        if solved.is_err() {
            self.store.sync()?;
        }
        solved
    }
}

/// What steps take from outside of their plan.
struct Outside<'a> {
    contexts: &'a Contexts,
    images: &'a ImageSource<'a>,
    remotes: &'a RemoteSources<'a>,
    devices: &'a CdiDevices,
    network: Option<&'a OfBuild<'a>>,
    caches: Caches<'a>,
}

/// Whether the image is for the store, where it must be whole: whoever runs or exports it by its name
/// or id may do so without any network. One that is only pushed can be had from its registry.
fn is_kept(request: &BuildRequest) -> bool {
    let only_pushed = request.outputs.iter().all(is_push) && !request.load;
    request.outputs.is_empty() || (!request.tags.is_empty() && !only_pushed)
}

fn is_push(wanted: &Export) -> bool {
    matches!(wanted.output, Output::Registry { .. })
}

/// What a build is called by those that come after it: it is explained by the last one of the same
/// Dockerfile, context and target.
fn project(store: &Store, request: &BuildRequest, dockerfile: &str) -> String {
    let context = match &request.context {
        ContextInput::None => "no context".to_owned(),
        ContextInput::Directory(path) if store.is_in_progress(path) => "a copy".to_owned(),
        ContextInput::Directory(path) => {
            fs_err::canonicalize(path).unwrap_or_else(|_| path.clone()).display().to_string()
        }
        ContextInput::Archive(_) => "an archive".to_owned(),
        ContextInput::Git(url) | ContextInput::Http(url) => rbuild_plan::without_passwords(url),
    };
    let target = request.options.target.as_ref();
    let target = target.map_or(String::new(), |target| format!(", target {target}"));
    format!("{context} ({dockerfile}{target})")
}

/// Steps mostly wait, for the network or a compiler's own threads, so twice the processors; and
/// four at least, so that the stages of an ordinary Dockerfile run side by side anywhere.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).saturating_mul(2).max(4)
}

impl Engine {
    fn tags(&self, request: &BuildRequest) -> Result<Vec<Reference>, BuildError> {
        let is_nameless = |wanted: &Export| is_push(wanted) && wanted.names.is_empty();
        if request.tags.is_empty() && request.outputs.iter().any(is_nameless) {
            let message = "a tag is needed when pushing to a registry: its host says to which one";
            return Err(BuildError::Request { message: message.to_owned() });
        }
        request.tags.iter().map(|name| self.tag(name)).collect()
    }

    /// A name for what is built.
    pub(crate) fn tag(&self, name: &str) -> Result<Reference, BuildError> {
        let reference = self.reference(name).map_err(|error| BuildError::Request {
            message: format!("invalid tag {name:?}: {error}"),
        })?;
        match reference.digest() {
            None => Ok(reference),
            Some(_) => Err(BuildError::Request {
                message: format!("invalid tag {name:?}: a new image cannot be named by a digest"),
            }),
        }
    }
}

/// Passes events on and keeps what became of each step.
struct Summary<'a> {
    progress: &'a dyn Progress,
    steps: Mutex<HashMap<StepId, StepSummary>>,
}

impl<'a> Summary<'a> {
    fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, steps: Mutex::default() }
    }

    fn finish(&self) -> Vec<StepSummary> {
        let steps = std::mem::take(&mut *self.steps.lock().unwrap_or_else(PoisonError::into_inner));
        let mut steps: Vec<_> = steps.into_iter().collect();
        steps.sort_by_key(|(id, _)| *id);
        steps.into_iter().map(|(_, step)| step).collect()
    }
}

impl Progress for Summary<'_> {
    fn event(&self, event: &Event) {
        {
            let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Event::StepQueued { step, name, .. } => {
                    let summary =
                        StepSummary { name: name.clone(), cached: false, reason: None, ms: 0 };
                    steps.insert(*step, summary);
                }
                Event::StepCached { step } => {
                    steps.entry(*step).and_modify(|summary| summary.cached = true);
                }
                Event::StepMissed { step, reason } => {
                    let reason = Some(reason.clone());
                    steps.entry(*step).and_modify(|summary| summary.reason = reason);
                }
                // A result of a cache elsewhere may turn out to be of no use.
                Event::StepStarted { step } => {
                    steps.entry(*step).and_modify(|summary| summary.cached = false);
                }
                Event::StepFinished { step, duration } => {
                    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                    steps.entry(*step).and_modify(|summary| summary.ms = ms);
                }
                _ => {}
            }
        }
        self.progress.event(event);
    }
}
