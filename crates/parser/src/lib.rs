//! Turns Dockerfile and .dockerignore text into typed syntax with spans and diagnostics.
//!
//! Pure: text in, values out. Problems are [`rbuild_types::Diagnostic`]s, never panics. What is
//! accepted, and the words in which the rest is refused, are BuildKit's; where this crate differs
//! on purpose, the module that does says so.

#![forbid(unsafe_code)]

pub mod ast;
mod directives;
mod document;
pub mod expand;
mod heredoc;
pub mod ignore_file;
mod instruction;
mod lines;
pub mod lint;
mod print;
mod suggest;

use rbuild_types::Diagnostic;

pub use directives::foreign_frontend;
pub use print::dump;
pub use suggest::suggest;

/// Parses a Dockerfile. The tree holds what could be read; when a diagnostic is an error, the
/// tree must not be built.
///
/// All errors that can be found are returned, the one that BuildKit would report first, warnings
/// last. The first place of each lies on the line that BuildKit names.
///
/// Errors with the code `mount-field` are those that BuildKit raises only when it comes to the
/// stage, so they may be dropped for a stage that is not built.
pub fn parse(text: &str) -> (ast::Dockerfile, Vec<Diagnostic>) {
    document::parse(text)
}

/// Parses one instruction as an `ONBUILD` trigger holds it. Spans are offsets into `text`.
///
/// As in BuildKit the escape character is the backslash, whatever the escape directive of the
/// file was in which the trigger stood.
pub fn parse_trigger(text: &str) -> Result<ast::Instruction, Vec<Diagnostic>> {
    document::parse_trigger(text)
}
