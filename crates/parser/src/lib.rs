//! Turns Dockerfile and .dockerignore text into typed syntax with spans and diagnostics.
//!
//! Pure: text in, values out. Problems are [`rbuild_types::Diagnostic`]s, never panics.

#![forbid(unsafe_code)]

pub mod ast;
pub mod expand;
pub mod ignore_file;
mod suggest;

use rbuild_types::Diagnostic;

pub use suggest::suggest;

/// Parses a Dockerfile. The tree holds what could be read; when a diagnostic is an error, the
/// tree must not be built.
pub fn parse(text: &str) -> (ast::Dockerfile, Vec<Diagnostic>) {
    let _ = text;
    let directives = ast::Directives::default();
    (ast::Dockerfile { directives, global_args: Vec::new(), stages: Vec::new() }, Vec::new())
}

/// Parses one instruction as an `ONBUILD` trigger holds it. Spans are offsets into `text`.
pub fn parse_trigger(text: &str) -> Result<ast::Instruction, Vec<Diagnostic>> {
    let _ = text;
    Err(Vec::new())
}
