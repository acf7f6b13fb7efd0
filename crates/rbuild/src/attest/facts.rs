//! What is known of how one image was made: from the plan, as far as the image needed it, and from
//! the sources as this build found them, whether they were fetched or in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rbuild_image::manifest::Descriptor;
use rbuild_image::media_type::OCI_LAYER;
use rbuild_plan::mount::{Mount, MountKind, MountRoot};
use rbuild_plan::op::{CopySource, Network, Op, Source};
use rbuild_plan::{NoCache, Plan, Target, VertexId, without_users};
use rbuild_types::{LineIndex, Platform};
use serde_json::{Map, Value, json};

use super::manifest::purl;
use super::{ProvenanceMode, vcs};
use crate::assemble::Assembled;
use crate::engine::random_id;
use crate::front::Front;
use crate::{BuildError, BuildRequest, ContextInput, NamedContextInput, Packaging};

/// One run of the engine.
pub(crate) struct Invocation {
    id: String,
    started: jiff::Timestamp,
}

impl Invocation {
    /// It begins now.
    pub(crate) fn begin() -> Result<Self, BuildError> {
        Ok(Self { id: random_id()?[..32].to_owned(), started: jiff::Timestamp::now() })
    }
}

/// When and under which name an image was made.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) started: String,
    pub(super) finished: String,
}

/// What a build was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Material {
    /// Images, then repositories, then files.
    order: u8,
    pub(super) uri: String,
    /// Algorithm and hexadecimal digits; `None` where nobody asked what it is.
    pub(super) digest: Option<(&'static str, String)>,
}

/// What is known of how one image was made.
pub(super) struct Facts {
    pub(super) materials: Vec<Material>,
    /// Whether those are all that files came from.
    pub(super) is_complete: bool,
    /// The context, where it lies elsewhere.
    pub(super) config_source: Option<Material>,
    /// The Dockerfile.
    pub(super) path: Option<String>,
    /// Options, by BuildKit's names.
    pub(super) args: BTreeMap<String, String>,
    /// Directories of the machine that files came from.
    pub(super) locals: BTreeSet<String>,
    /// By their names: whether the steps do without.
    pub(super) secrets: BTreeMap<String, bool>,
    pub(super) agents: BTreeMap<String, bool>,
    /// Whether a process could ask others.
    pub(super) has_network: bool,
    /// What the directory of the context is a checkout of.
    pub(super) vcs: BTreeMap<&'static str, String>,
    /// The machine.
    pub(super) platform: Platform,
    /// Left out where nothing may differ from build to build.
    pub(super) run: Option<Run>,
    /// Only if somebody wants to know.
    pub(super) steps: Option<Steps>,
}

/// The steps of a build, by numbers of their own.
#[derive(Default)]
pub(super) struct Steps {
    /// What each needs of the others.
    pub(super) described: Vec<Value>,
    /// Where they stand.
    pub(super) locations: Map<String, Value>,
    /// Which layers those have made that the image is made of.
    pub(super) layers: Map<String, Value>,
    /// Where all of it stands.
    pub(super) dockerfile: String,
}

impl Facts {
    pub(super) fn of(
        request: &BuildRequest,
        front: &Front<'_>,
        plan: &Plan,
        target: &Target,
        image: &Assembled,
        invocation: &Invocation,
        mode: ProvenanceMode,
    ) -> Self {
        let run = target.source_date_epoch.is_none().then(|| Run {
            id: invocation.id.clone(),
            started: invocation.started.to_string(),
            finished: jiff::Timestamp::now().to_string(),
        });
        let mut facts = Self {
            materials: Vec::new(),
            is_complete: true,
            config_source: None,
            path: dockerfile(request, &front.text.name),
            args: arguments(request),
            locals: BTreeSet::new(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            has_network: false,
            vcs: BTreeMap::new(),
            platform: request.options.build_platform.clone(),
            run,
            steps: None,
        };
        let elsewhere = matches!(request.context, ContextInput::Git(_) | ContextInput::Http(_));
        if let Some(source) = &front.opened.source {
            facts.config_source = facts.material(source, front);
        }
        if !elsewhere {
            facts.locals.insert("dockerfile".to_owned());
        }
        if let ContextInput::Directory(directory) = &request.context
            && !request.attestations.without_vcs
        {
            facts.vcs = vcs::of(directory);
        }
        let needed = needed(plan, target);
        facts.plan(front, plan, &needed, elsewhere);
        facts.steps =
            (mode == ProvenanceMode::Max).then(|| Steps::of(&front.text.text, plan, &needed));
        if let (Some(steps), Packaging::Each) = (&mut facts.steps, request.packaging) {
            steps.add_layers(plan, target, image, &needed);
        }
        facts.materials.sort();
        facts.materials.dedup();
        facts.is_complete &= facts.locals.is_empty();
        facts
    }

    /// Everything that the vertices say which the target needs.
    fn plan(&mut self, front: &Front<'_>, plan: &Plan, needed: &Needed, elsewhere: bool) {
        for id in needed.keys() {
            let vertex = plan.graph.vertex(*id);
            let mut local = |name: &Option<String>| match name {
                Some(name) => drop(self.locals.insert(name.clone())),
                None if !elsewhere => drop(self.locals.insert("context".to_owned())),
                None => {}
            };
            match &vertex.op {
                Op::Source(source) => drop(self.material(source, front)),
                Op::Copy(copy) => {
                    for source in &copy.sources {
                        if let CopySource::Context { context, .. } = source {
                            local(context);
                        }
                    }
                }
                Op::Run(run) => {
                    for Mount { kind, .. } in &run.mounts {
                        if let MountKind::Bind(source) = kind
                            && let MountRoot::Context { context } = &source.root
                        {
                            local(context);
                        }
                    }
                    self.has_network |= run.network != Network::None;
                    for Mount { kind, .. } in &run.mounts {
                        let (names, id, required) = match kind {
                            MountKind::Secret(mount) => {
                                (&mut self.secrets, &mount.id, mount.required)
                            }
                            MountKind::Ssh(mount) => (&mut self.agents, &mount.id, mount.required),
                            _ => continue,
                        };
                        *names.entry(id.clone()).or_insert(true) &= !required;
                    }
                }
                Op::Mkdir(_) | Op::Merge => {}
            }
        }
    }

    fn material(&mut self, source: &Source, front: &Front<'_>) -> Option<Material> {
        let material = match source {
            Source::Image { reference, platform } => {
                let kind = if front.images.is_layout(reference) { "oci" } else { "docker" };
                let digest = reference.digest().map(|digest| ("sha256", digest.hex()));
                Material { order: 0, uri: purl(kind, reference, platform), digest }
            }
            Source::Git(git) => {
                let mut uri = without_users(&git.remote);
                if !git.reference.is_empty() || !git.subdir.is_empty() {
                    uri.push_str(&format!("#{}", git.reference));
                }
                if !git.subdir.is_empty() {
                    uri.push_str(&format!(":{}", git.subdir));
                }
                let commit = front.remotes.commit(source).map(|commit| ("sha1", commit));
                Material { order: 1, uri, digest: commit }
            }
            Source::Http(http) => {
                let digest = http.checksum.or_else(|| front.remotes.content(source));
                let digest = digest.map(|digest| ("sha256", digest.hex()));
                Material { order: 2, uri: without_users(&http.url), digest }
            }
        };
        self.is_complete &= material.digest.is_some();
        self.materials.push(material.clone());
        Some(material)
    }
}

impl Steps {
    fn of(text: &str, plan: &Plan, needed: &Needed) -> Self {
        let mut steps = Self { dockerfile: without_users(text), ..Self::default() };
        let lines = LineIndex::new(text);
        for (id, number) in needed {
            let vertex = plan.graph.vertex(*id);
            let inputs: Vec<_> =
                vertex.inputs.iter().filter_map(|id| needed.get(id).map(output)).collect();
            let name = format!("step{number}");
            let mut described = json!({ "id": name });
            if !inputs.is_empty() {
                described["inputs"] = json!(inputs);
            }
            steps.described.push(described);
            if let Some(span) = vertex.span {
                let last = lines.line(span.end.saturating_sub(1).max(span.start));
                let range = json!({
                    "start": { "line": lines.line(span.start) }, "end": { "line": last },
                });
                steps.locations.insert(name, json!({ "locations": [{ "ranges": [range] }] }));
            }
        }
        steps
    }

    /// Which layers those steps are whose results lie upon one another in the image.
    fn add_layers(&mut self, plan: &Plan, target: &Target, image: &Assembled, needed: &Needed) {
        let mut chain = Vec::new();
        let mut at = target.vertex;
        while let Some(id) = at {
            let vertex = plan.graph.vertex(id);
            chain.push(id);
            at = vertex.inputs.first().copied().filter(|_| vertex.op.has_root());
        }
        let base = image.base.iter().flat_map(|base| base.manifest.layers.clone());
        let mut below: Vec<Descriptor> = base.collect();
        let mut own = image.layers.iter();
        for id in chain.iter().rev() {
            if !matches!(plan.graph.vertex(*id).op, Op::Source(Source::Image { .. })) {
                let layer = own.next();
                below.extend(
                    layer.map(|layer| Descriptor::new(OCI_LAYER, layer.diff_id, layer.tar_size)),
                );
            }
            let name = needed.get(id).map(output);
            self.layers.extend(name.map(|name| (name, json!([below]))));
        }
    }
}

/// What a step made, as others name it.
fn output(number: &usize) -> String {
    format!("step{number}:0")
}

/// The vertices that a target needs, inputs before those that use them, and their numbers.
type Needed = BTreeMap<VertexId, usize>;

fn needed(plan: &Plan, target: &Target) -> Needed {
    let mut needed = BTreeSet::new();
    let mut waiting: Vec<_> = target.vertex.into_iter().collect();
    while let Some(id) = waiting.pop() {
        if needed.insert(id) {
            waiting.extend(&plan.graph.vertex(id).inputs);
        }
    }
    needed.into_iter().enumerate().map(|(number, id)| (id, number)).collect()
}

/// The Dockerfile as those know it who have the context: a path of this machine is nobody else's.
fn dockerfile(request: &BuildRequest, name: &str) -> Option<String> {
    let elsewhere = !matches!(request.context, ContextInput::Directory(_) | ContextInput::None);
    let path = Path::new(name);
    if name.contains("://") {
        return None;
    }
    if elsewhere && path.is_relative() {
        return Some(name.to_owned());
    }
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// The options of a request by the names that they have between BuildKit and its frontend.
fn arguments(request: &BuildRequest) -> BTreeMap<String, String> {
    let options = &request.options;
    let mut args = BTreeMap::new();
    for (name, value) in &options.build_args {
        args.insert(format!("build-arg:{name}"), without_users(value));
    }
    for (name, value) in &options.labels {
        args.insert(format!("label:{name}"), without_users(value));
    }
    for (name, input) in &request.contexts {
        let value = match input {
            NamedContextInput::Directory(_) => format!("local:{name}"),
            NamedContextInput::Image(image) => format!("docker-image://{image}"),
            NamedContextInput::OciLayout { tag, digest, .. } => {
                let tag = tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
                let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
                format!("oci-layout://{name}{tag}{digest}")
            }
            NamedContextInput::Git(url) | NamedContextInput::Http(url) => without_users(url),
            NamedContextInput::Target(target) => format!("target:{target}"),
        };
        args.insert(format!("context:{name}"), value);
    }
    if let Some(target) = &options.target {
        args.insert("target".to_owned(), target.clone());
    }
    match &options.no_cache {
        NoCache::Off => {}
        NoCache::All => drop(args.insert("no-cache".to_owned(), String::new())),
        NoCache::Stages(stages) => drop(args.insert("no-cache".to_owned(), stages.join(","))),
    }
    match options.network {
        Network::Default => {}
        Network::None => drop(args.insert("force-network-mode".to_owned(), "none".to_owned())),
        Network::Host => drop(args.insert("force-network-mode".to_owned(), "host".to_owned())),
    }
    if let Some(bytes) = options.shm_size {
        args.insert("shm-size".to_owned(), bytes.to_string());
    }
    args
}
