//! `--build-context`: what names stand for in the plan.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

mod support;

use rbuild_plan::mount::{MountKind, MountRoot};
use rbuild_plan::op::{CopySource, Op, Source};
use rbuild_plan::{ContextOptions, NamedContext, Options, Plan, RemoteContext, lower};
use rbuild_types::Diagnostic;
use serde_json::json;

fn local() -> NamedContext {
    NamedContext::Local
}

fn image(name: &str) -> NamedContext {
    NamedContext::Image { reference: name.parse().unwrap(), shown: None }
}

fn remote(url: &str) -> NamedContext {
    let parsed = RemoteContext::parse(url, ContextOptions::default()).unwrap();
    NamedContext::Remote(parsed.unwrap())
}

fn try_plan(text: &str, contexts: &[(&str, NamedContext)]) -> Result<Plan, Vec<Diagnostic>> {
    let named = json!({"Env": ["KIND=named"], "WorkingDir": "/named", "OnBuild": ["RUN fired"]});
    let images = support::small().with("named", 1, named);
    let mut options =
        Options { platforms: vec!["linux/amd64".parse().unwrap()], ..Options::default() };
    for (name, context) in contexts {
        options.contexts.insert(name, context.clone()).unwrap();
    }
    let (dockerfile, problems) = rbuild_parser::parse(text);
    assert!(problems.is_empty(), "{problems:?}");
    lower(text, &dockerfile, &options, &images)
}

fn plan(text: &str, contexts: &[(&str, NamedContext)]) -> Plan {
    let plan = try_plan(text, contexts).unwrap();
    support::check(&plan);
    plan
}

fn steps(plan: &Plan) -> Vec<&str> {
    plan.graph.vertices().map(|(_, vertex)| vertex.name.as_str()).collect()
}

#[test]
fn a_directory_is_no_vertex_unless_it_is_a_base() {
    let text = "FROM base\nCOPY --from=extra a /\nRUN --mount=from=extra,target=/m x";
    let plan = plan(text, &[("extra", local())]);
    let steps = steps(&plan);
    assert_eq!(steps.len(), 3, "{steps:?}");
    let extra = Some("extra".to_owned());
    let mut found = 0;
    for (_, vertex) in plan.graph.vertices() {
        match &vertex.op {
            Op::Copy(copy) => {
                let path = "/a".to_owned();
                assert_eq!(copy.sources, [CopySource::Context { context: extra.clone(), path }]);
                found += 1;
            }
            Op::Run(run) => {
                let MountKind::Bind(source) = &run.mounts[0].kind else { panic!() };
                assert_eq!(source.root, MountRoot::Context { context: extra.clone() });
                found += 1;
            }
            _ => {}
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn a_directory_as_a_base_is_a_layer() {
    let plan = plan("FROM rootfs\nENV a=1", &[("rootfs", local())]);
    assert_eq!(steps(&plan), ["[1/1] FROM rootfs"]);
    let history: Vec<_> =
        plan.targets[0].config.history.iter().map(|item| item.created_by.as_str()).collect();
    assert_eq!(history, ["FROM rootfs", "ENV a=1"]);
    assert!(!plan.targets[0].config.history[0].empty_layer);
    assert!(plan.targets[0].config.config.env[0].starts_with("PATH="));
}

#[test]
fn a_stage_of_that_name_is_not_looked_at() {
    let text = "FROM nowhere/x AS dep\nRUN wrong --from=\nCOPY --from=nowhere/y / /\n\
                FROM base\nCOPY --from=dep a /a\nCOPY --from=0 b /b";
    let local = plan(text, &[("dep", local())]);
    assert_eq!(local.graph.len(), 3);
    let named = plan(text, &[("dep", image("named"))]);
    let steps = steps(&named);
    assert!(steps[0].starts_with("[dep 1/1] FROM docker.io/library/named"), "{steps:?}");
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert!(plan(text, &[("dep", NamedContext::Scratch)]).graph.len() == 3);
    assert!(try_plan(text, &[]).is_err());
}

#[test]
fn an_image_brings_its_config_and_its_triggers_to_children() {
    let text = "FROM nowhere/x AS dep\nENV KIND=own\nFROM dep\nRUN a";
    let child = plan(text, &[("dep", image("named"))]);
    assert!(child.targets[0].config.config.env.contains(&"KIND=named".to_owned()));
    assert_eq!(child.targets[0].config.config.working_dir, "/named");
    let steps = steps(&child);
    assert!(steps[1].ends_with("ONBUILD RUN fired"), "{steps:?}");
    // The stage itself does not fire them, and what it says is not there.
    let alone = plan("FROM nowhere/x AS dep\nRUN own", &[("dep", image("named"))]);
    assert_eq!(alone.graph.len(), 1);
}

#[test]
fn a_layout_is_shown_as_it_was_named() {
    let reference = "oci-layout.invalid/0".parse().unwrap();
    let shown = Some("oci-layout://dir:1".to_owned());
    let context = NamedContext::Image { reference, shown };
    let errors = try_plan("FROM x", &[("x", context)]).unwrap_err();
    assert!(errors[0].message.contains("metadata for oci-layout://dir:1:"), "{errors:?}");
}

#[test]
fn stages_come_before_contexts_in_from() {
    // `base` names the stage's own base here, so only an exact name of a stage is another.
    let text = "FROM base AS one\nRUN a\nFROM one\nRUN b";
    assert_eq!(plan(text, &[("other", local())]).graph.len(), 3);
    let replaced = plan("FROM base\nRUN a", &[("base:latest", image("named"))]);
    let sources: Vec<_> = replaced
        .graph
        .vertices()
        .filter_map(|(_, vertex)| match &vertex.op {
            Op::Source(Source::Image { reference, .. }) => Some(reference.familiar()),
            _ => None,
        })
        .collect();
    assert!(sources[0].starts_with("named"), "{sources:?}");
    let errors = try_plan(
        "FROM base AS a\nCOPY --from=b x /\nFROM base AS b\nRUN x\nFROM a",
        &[("b", local())],
    );
    assert!(errors.unwrap_err()[0].message.contains("needs to be defined before"));
}

#[test]
fn what_nothing_asks_for_is_told() {
    let text = "FROM base AS one\nRUN a\nFROM base AS two\nCOPY --from=extra a /";
    let contexts = [
        ("extra", local()),
        ("one", local()),
        ("nobody", local()),
        ("nobody::linux/s390x", local()),
    ];
    // `one` is not needed for the target.
    assert_eq!(plan(text, &contexts).unused_contexts, ["nobody", "one"]);
}

#[test]
fn what_lies_elsewhere_is_fetched_once() {
    let text = "FROM base\nCOPY --from=far a /\nRUN --mount=from=far,target=/m x\n\
                FROM far\nCOPY --from=0 /a /b";
    let plan = plan(text, &[("far", remote("https://u:p@h/r.git#main:sub"))]);
    assert_eq!(
        steps(&plan),
        [
            "[stage-0 1/3] FROM docker.io/library/base:latest",
            "fetch https://u:xxxxx@h/r.git#main:sub",
            "[stage-0 2/3] COPY --from=far a /",
            "[stage-0 3/3] RUN --mount=from=far,target=/m x",
            "[stage-1 1/2] FROM far",
            "[stage-1 2/2] COPY --from=0 /a /b",
        ]
    );
    assert_eq!(plan.unused_contexts, Vec::<String>::new());
}
