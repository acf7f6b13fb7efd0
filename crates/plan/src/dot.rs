//! The graph as Graphviz text.

use std::fmt::Write;

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
            let style = if position == 0 && vertex.op.has_root() { "" } else { " [style=dashed]" };
            let _ = writeln!(text, "  v{} -> v{}{style}", input.0, id.0);
        }
    }
    text.push_str("}\n");
    text
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
