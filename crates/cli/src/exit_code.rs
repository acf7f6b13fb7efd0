//! The numbers that the command exits with.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a step failed, or the arguments or the Dockerfile are wrong |
//! | 1, 2 | `diff`, `repro`: the images differ; they could not be made or compared |
//! | 125 | `run`: the container could not be made or started; `exec`: it could not be entered |
//! | 126 | `run`, `exec`: the command is there but cannot be executed |
//! | 127 | `run`, `exec`: the command is not there |
//! | 130, 143 | interrupted by SIGINT, by SIGTERM; everything is cleaned up |
//! | other | `run`, `exec`: the code of the process, or 128 and the signal that ended it |

use std::process::ExitCode;

use rbuild::{BuildError, Cancelled, SandboxError, StepError};

use crate::failure::Failure;

/// Everything is done.
pub const SUCCESS: i32 = 0;
/// Something failed.
pub const FAILURE: i32 = 1;
/// `diff` and `repro`: no answer, as diff(1) says it.
pub const TROUBLE: i32 = 2;
/// `run` and `exec`: our own failure, as Docker says it.
pub const CANNOT_RUN: i32 = 125;
/// What a shell adds to a signal's number.
pub const SIGNAL_BASE: i32 = 128;

/// The code as the system takes it.
pub fn of(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

/// The code that stands for a failure.
pub fn of_failure(failure: &Failure) -> i32 {
    match failure {
        Failure::Silent(code) | Failure::WithCode(code, _) => *code,
        Failure::Clap { error, .. } if !error.use_stderr() => SUCCESS,
        Failure::Clap { code, .. } => *code,
        Failure::Engine(error) if is_cancelled(error) => crate::interrupt::exit_code(),
        Failure::Usage { .. } | Failure::Engine(_) | Failure::Io { .. } => FAILURE,
    }
}

/// A failure of a command that answers with 0 or 1.
pub fn trouble(failure: Failure) -> Failure {
    match failure {
        // All is said already, or an interrupt has a code of its own.
        Failure::Silent(code) => Failure::Silent(code),
        other if of_failure(&other) == FAILURE => Failure::WithCode(TROUBLE, Box::new(other)),
        other => other,
    }
}

/// The code of a container that could not be run.
pub fn of_run_error(error: &BuildError) -> i32 {
    match error {
        BuildError::Sandbox(SandboxError::Start(failure)) => failure.code,
        error if is_cancelled(error) => crate::interrupt::exit_code(),
        _ => CANNOT_RUN,
    }
}

/// Whether the call only stopped because it was asked to. Each layer has a word of its own for
/// that.
pub fn is_cancelled(error: &BuildError) -> bool {
    match error {
        BuildError::Cancelled(_) | BuildError::Sandbox(SandboxError::Cancelled(_)) => true,
        BuildError::Step { failure, .. } => matches!(failure.source, StepError::Cancelled(_)),
        other => crate::interrupt::happened() && other.to_string() == Cancelled.to_string(),
    }
}
