//! What a build of one target takes from outside.

use rbuild_types::Span;

/// The parameters of a target, each list in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// What a comment says of it.
    pub description: Option<String>,
    /// Build arguments that the target or a stage that it needs declares.
    pub args: Vec<OutlineArg>,
    /// `RUN --mount=type=secret`.
    pub secrets: Vec<OutlineMount>,
    /// `RUN --mount=type=ssh`.
    pub ssh: Vec<OutlineMount>,
    /// `RUN --mount=type=cache`.
    pub caches: Vec<OutlineMount>,
}

/// One build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What it is, from `--build-arg` or its default; nothing when it has neither.
    pub value: Option<String>,
    /// What a comment says of it.
    pub description: Option<String>,
    /// The instruction.
    pub span: Span,
}

/// One thing that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// By what name.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The instruction.
    pub span: Span,
}
