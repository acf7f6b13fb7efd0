//! What the plan makes of `testdata/dockerfiles/<case>/Dockerfile`, kept beside it. Refresh with
//! `cargo insta review` and read the difference.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod support;

use std::fmt::Write;
use std::path::Path;

use rbuild_plan::{Plan, dot};

/// The cases whose plan is kept; the folder holds further ones for the parser alone.
const CASES: [&str; 4] = ["arguments", "heredocs-run-and-copy", "mounts-and-triggers", "stages"];

#[test]
fn plans() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/dockerfiles");
    for case in CASES {
        let text = fs_err::read_to_string(folder.join(case).join("Dockerfile")).unwrap();
        let plan = support::plan(&text);
        support::check(&plan);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(folder.join(case));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("plan", show(&plan)));
    }
}

fn show(plan: &Plan) -> String {
    let mut shown = dot(plan);
    for (id, vertex) in plan.graph.vertices() {
        let op = serde_json::to_string_pretty(&vertex.op).unwrap();
        writeln!(shown, "\nv{} of {}: {op}", id.0, vertex.stage).unwrap();
    }
    writeln!(shown, "\n{}", serde_json::to_string_pretty(&plan.targets[0].config).unwrap())
        .unwrap();
    for warning in &plan.warnings {
        writeln!(shown, "{}: {}", warning.code, warning.message).unwrap();
    }
    shown
}
