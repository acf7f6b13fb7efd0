//! What a command can end with besides success.

use rbuild::{BuildError, ContainerError};

/// Why a command failed. Rendered in `report.rs` only.
#[derive(Debug)]
pub enum Failure {
    /// The arguments cannot be meant.
    Usage {
        /// One sentence in lower case.
        message: String,
        /// Ways out.
        hints: Vec<String>,
    },
    /// clap refused the arguments, or was asked for help.
    Clap {
        /// Its text, coloured.
        error: clap::Error,
        /// The code to exit with when it is an error.
        code: i32,
    },
    /// The engine refused or failed.
    Engine(Box<BuildError>),
    /// A file or stream of the command itself could not be used.
    Io {
        /// What was being done, and with what: `write app.iid`.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another failure with another exit code, such as Docker's 125 of `run`.
    WithCode(i32, Box<Failure>),
    /// All is said; exit with this code.
    Silent(i32),
}

impl Failure {
    /// A mistake in the arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hints: Vec::new() }
    }

    /// A mistake in the arguments and a way out.
    pub fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hints: vec![hint.into()] }
    }

    /// What went wrong, for who says it later.
    pub fn sentence(&self) -> String {
        match self {
            Self::Usage { message, .. } => message.clone(),
            Self::Clap { error, .. } => error.to_string(),
            Self::Engine(error) => error.to_string(),
            Self::Io { what, source } => format!("{what}: {source}"),
            Self::WithCode(_, failure) => failure.sentence(),
            Self::Silent(_) => String::new(),
        }
    }

    /// A file or stream that could not be used.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Self {
        BuildError::from(error).into()
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Engine(Box::new(error))
    }
}
