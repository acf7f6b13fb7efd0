//! Settings of a step in a comment above its instruction: `# rbuild: ttl=24h`.

use std::time::Duration;

use rbuild_parser::ast::Instruction;
use rbuild_types::{Diagnostic, Span};

use super::stage::is_step;
use crate::duration;

/// Code of what is said about them.
const CODE: &str = "rbuild-setting";
/// What such comments begin with.
const PREFIX: &str = "rbuild:";

/// What the comments above an instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Settings {
    /// How old a result may be that is taken from the cache.
    pub(super) ttl: Option<Duration>,
}

impl Settings {
    /// Reads them; `place` is what to point at. Words that are no settings are warned of: they may
    /// be there for people.
    pub(super) fn of(
        instruction: &Instruction,
        place: Span,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        let mut settings = Self::default();
        let lines = instruction.comments.iter().filter_map(|line| line.strip_prefix(PREFIX));
        for word in lines.flat_map(|line| line.split([' ', '\t', ',']).filter(|it| !it.is_empty()))
        {
            let help = "settings of a step are written above it, such as `# rbuild: ttl=24h`";
            match word.split_once('=') {
                Some(("ttl", value)) => {
                    let ttl = duration(value);
                    let message = format!("{value:?} is no duration: 30m, 24h or 7d would be");
                    let bad = || Diagnostic::error(CODE, place, message).help(help);
                    settings.ttl = Some(ttl.ok_or_else(bad)?);
                }
                _ => {
                    let message = format!("there is no setting {word:?} of a step");
                    warnings.push(Diagnostic::warning(CODE, place, message).help(help));
                }
            }
        }
        if settings != Self::default() && !is_step(instruction) {
            let message = "a setting of a step has no effect on this instruction";
            warnings.push(Diagnostic::warning(CODE, place, message));
        }
        Ok(settings)
    }
}
