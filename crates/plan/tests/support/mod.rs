//! Base images as a map, and a short way to a plan.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::cell::RefCell;
use std::collections::BTreeMap;

use rbuild_plan::{ImageConfigs, ImageError, Options, Plan, ResolvedImage, Target, lower};
use rbuild_types::{Diagnostic, Digest, ImageConfig, Platform, Reference};
use serde_json::{Value, json};

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Images by full reference, each for some platforms.
#[derive(Default)]
pub struct Images {
    known: BTreeMap<String, Vec<ImageConfig>>,
    /// What was asked for, in order.
    pub asked: RefCell<Vec<String>>,
}

impl Images {
    /// An image with `layers` layers; `config` is the inner config.
    pub fn with(mut self, name: &str, layers: usize, config: Value) -> Self {
        self.add(name, "amd64", layers, config);
        self
    }

    pub fn add(&mut self, name: &str, architecture: &str, layers: usize, config: Value) {
        let history: Vec<_> = (0..layers)
            .map(|layer| json!({"created_by": format!("conformance base layer {layer}")}))
            .collect();
        let digests: Vec<_> = (0..layers).map(|layer| Digest::of(layer.to_string())).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2023-11-14T22:13:20Z",
            "config": config, "history": history,
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        self.insert(name, config);
    }

    /// An image by its whole config.
    pub fn insert(&mut self, name: &str, config: Value) {
        let reference: Reference = name.parse().unwrap();
        let config = serde_json::from_value(config).unwrap();
        self.known.entry(reference.to_string()).or_default().push(config);
    }
}

impl ImageConfigs for Images {
    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError> {
        self.asked.borrow_mut().push(format!("{} {platform}", reference.familiar()));
        let not_found = || ImageError::NotFound { reference: reference.clone() };
        let configs = self.known.get(&reference.to_string()).ok_or_else(not_found)?;
        let config = match configs.as_slice() {
            [only] => only,
            several => several
                .iter()
                .find(|config| config.platform().satisfies(platform))
                .ok_or_else(|| ImageError::Platform {
                    platform: platform.clone(),
                    available: several.iter().map(ImageConfig::platform).collect(),
                })?,
        };
        Ok(ResolvedImage {
            reference: reference.clone(),
            platform: config.platform(),
            config: config.clone(),
        })
    }
}

/// The base images of the conformance cases, under the names that the cases use.
pub fn bases() -> Images {
    let base = |name: &str| format!("127.0.0.1:5056/{name}");
    let shell = json!({"Env": [PATH], "Cmd": ["sh"]});
    let mut onbuild = shell.clone();
    onbuild["OnBuild"] = json!([
        "COPY trigger.txt /from-onbuild.txt",
        "RUN echo \"$GREETING onbuild\" > /onbuild-ran",
        "ENV FROM_ONBUILD=1",
        "WORKDIR /onbuild/wd",
    ]);
    let rich = json!({
        "Env": [PATH, "FROM_BASE=yes", "SPACED=a b c", "EMPTY="],
        "Entrypoint": ["/bin/echo", "ep"], "Cmd": ["default", "args"], "WorkingDir": "/srv",
        "User": "app", "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/srv/vol": {}},
        "Labels": {"base": "rich", "keep": "me"}, "StopSignal": "SIGQUIT",
        "Shell": ["/bin/sh", "-ec"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64, "Retries": 2},
    });
    let mut images = Images::default()
        .with(&base("busybox:1"), 1, shell.clone())
        .with(&base("rich:1"), 2, rich)
        .with(&base("onbuild:1"), 1, onbuild)
        .with(&base("layered:1"), 5, shell.clone())
        .with(&base("dockerv2:1"), 2, shell.clone())
        .with(&base("plainlayer:1"), 2, shell)
        .with(&base("debian:1"), 1, json!({"Env": [PATH], "Cmd": ["bash"]}));
    // BuildKit's own tests use a mirrored busybox, whose history has two items for one layer.
    let mirrored = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": [PATH], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of("")]},
        "history": [
            {"created_by": "umoci raw add-layer"},
            {"created_by": "umoci config", "empty_layer": true},
        ],
    });
    images.insert("busybox:latest", mirrored);
    for architecture in ["amd64", "arm64"] {
        let env = json!({"Env": [PATH, format!("BASE_ARCH={architecture}")]});
        images.add(&base("multi:1"), architecture, 1, env);
    }
    images
}

/// `base`, a busybox, and `multi`, for the tables.
pub fn small() -> Images {
    Images::default().with("base", 1, json!({"Env": [PATH], "Cmd": ["sh"]})).with(
        "bare",
        1,
        json!({}),
    )
}

/// The default options on a fixed machine.
pub fn options() -> Options {
    Options { build_platform: Platform::new("linux", "amd64"), ..Options::default() }
}

/// Parses and lowers; errors of the parser count as errors.
pub fn plan_with(
    text: &str,
    options: &Options,
    images: &dyn ImageConfigs,
) -> Result<Plan, Vec<Diagnostic>> {
    let (dockerfile, diagnostics) = rbuild_parser::parse(text);
    // Errors in mount fields count only in stages that are built: the plan finds them itself.
    let counts = |error: &Diagnostic| error.is_error() && error.code != "mount-field";
    let errors: Vec<_> = diagnostics.into_iter().filter(counts).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    lower(text, &dockerfile, options, images)
}

/// A plan that must come about, from [`small`].
pub fn plan(text: &str) -> Plan {
    plan_with(text, &options(), &small()).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"))
}

/// The message of the first error, from [`small`].
pub fn error(text: &str) -> String {
    error_with(text, &options())
}

pub fn error_with(text: &str, options: &Options) -> String {
    match plan_with(text, options, &small()) {
        Ok(plan) => panic!("{text}\nmade {plan:#?}"),
        Err(errors) => errors[0].message.clone(),
    }
}

/// The chain of vertices of the first target from the bottom up.
pub fn chain(plan: &Plan) -> Vec<&rbuild_plan::Vertex> {
    chain_of(plan, &plan.targets[0])
}

fn chain_of<'p>(plan: &'p Plan, target: &Target) -> Vec<&'p rbuild_plan::Vertex> {
    let mut chain = Vec::new();
    let mut next = target.vertex;
    while let Some(id) = next {
        let vertex = plan.graph.vertex(id);
        chain.push(vertex);
        next = vertex.inputs.first().copied().filter(|_| vertex.op.has_root());
    }
    chain.reverse();
    chain
}

/// The invariant that [`Target`] states.
pub fn check(plan: &Plan) {
    use rbuild_plan::op::Op;
    for target in &plan.targets {
        let chain = chain_of(plan, target);
        let layers = chain.iter().filter(|vertex| !matches!(vertex.op, Op::Source(_))).count();
        let new = &target.config.history[target.base_history..];
        let filled = new.iter().filter(|item| !item.empty_layer).count();
        assert_eq!(layers, filled, "{:#?}", target.config.history);
    }
    for (id, vertex) in plan.graph.vertices() {
        assert!(vertex.inputs.iter().all(|input| *input < id), "{}", vertex.name);
    }
}
