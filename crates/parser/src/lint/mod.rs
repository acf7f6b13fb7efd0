//! Build checks: BuildKit's lint rules, by name, words and page.
//!
//! A finding is a warning like any other [`rbuild_types::Diagnostic`]; what makes it one is that
//! its code is a rule's name. Each rule is found where what it needs is known: those that need
//! the text only by [`check_file`] and [`check_stage`] here, those that need values of variables
//! or a base image where stages are lowered, and the one about ignored files where the context
//! is. Nobody asks at the place whether a rule is switched off: [`Filter`] says it of all findings
//! alike, at the end, from the settings of the file and the comments above the instructions.

mod casing;
mod description;
mod filter;
mod legacy;
mod maintainer;
mod names;
mod repeated;
pub mod rules;
mod secrets;
mod settings;

pub use filter::Filter;
pub use rules::Rule;
pub use secrets::is_secret;
pub use settings::{Settings, SettingsError};

use rbuild_types::Diagnostic;

use crate::ast::{Dockerfile, Instruction, Stage};

/// What BuildKit finds in a whole file, whichever stages are built.
pub fn check_file(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = casing::stages(&dockerfile.stages);
    found.extend(names::check(&dockerfile.stages));
    found.extend(casing::instructions(&dockerfile.stages));
    found.extend(description::check(dockerfile));
    found.extend(maintainer::check(dockerfile));
    found
}

/// What BuildKit finds in a stage only when it comes to build it.
pub fn check_stage(stage: &Stage) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = stage.instructions.iter().flat_map(legacy::check).collect();
    found.extend(stage.instructions.iter().flat_map(secrets::check));
    found.extend(repeated::check(&stage.instructions));
    found
}

/// The keyword of an instruction in capitals, as messages name it.
fn name_of(instruction: &Instruction) -> String {
    instruction.keyword.value.to_uppercase()
}
