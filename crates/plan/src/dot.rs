//! The graph as Graphviz text.

use std::fmt::Write;

use crate::op::Op;
use crate::plan::Plan;

/// Draws the plan: one node per vertex, labelled with its step name; an edge from each input to
/// its user, dashed when the input is only read; targets drawn twice around.
pub fn dot(plan: &Plan) -> String {
    let mut text = "digraph plan {\n  node [shape=box]\n".to_owned();
    for (id, vertex) in plan.graph.vertices() {
        let is_target = plan.targets.iter().any(|target| target.vertex == Some(id));
        let border = if is_target { " peripheries=2" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  v{} [label={}{border}]", id.0, quoted(&vertex.name));
        for (position, input) in vertex.inputs.iter().enumerate() {
            let style = if position == 0 && has_root(&vertex.op) { "" } else { " [style=dashed]" };
            let _ = writeln!(text, "  v{} -> v{}{style}", input.0, id.0);
        }
    }
    text.push_str("}\n");
    text
}

fn has_root(op: &Op) -> bool {
    match op {
        Op::Source(_) => false,
        Op::Run(run) => run.has_root,
        Op::Copy(copy) => copy.has_root,
        Op::Mkdir(mkdir) => mkdir.has_root,
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\l"),
            control if control.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
