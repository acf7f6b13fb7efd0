//! `ONBUILD`: triggers are kept as text, and fire right after the `FROM` of the next stage.

use rbuild_parser::ast::{Instruction, InstructionKind, Text};
use rbuild_parser::parse_trigger;
use rbuild_types::{Diagnostic, Label, Span};

use super::Stop;
use super::stage::{Origin, StageLowering, Trigger, is_step};

impl StageLowering<'_, '_> {
    /// Keeps a trigger for whoever builds on this stage. It makes no history.
    pub(super) fn onbuild(&mut self, trigger: &Text) -> Result<(), Diagnostic> {
        self.charge(trigger.value.len())?;
        self.state.config.config.on_build.push(trigger.value.clone());
        self.state.triggers.push(Trigger { text: trigger.value.clone(), span: Some(self.here) });
        Ok(())
    }

    /// How many steps the waiting triggers will make; broken ones are told of when they fire.
    pub(super) fn count_trigger_steps(&self) -> usize {
        let parsed = self.state.triggers.iter().filter_map(|one| parse_trigger(&one.text).ok());
        parsed.filter(is_step).count()
    }

    /// Fires the triggers of the base, which are then used up.
    pub(super) fn run_triggers(&mut self) -> Result<(), Stop> {
        self.state.config.config.on_build.clear();
        let from = self.here;
        for trigger in std::mem::take(&mut self.state.triggers) {
            let place = trigger.span.unwrap_or(from);
            let fired = |stop| from_trigger(stop, &trigger, from);
            let instruction = parse(&trigger, place).map_err(|error| fired(error.into()))?;
            self.origin = Origin::Trigger { place };
            self.instruction(&instruction).map_err(fired)?;
        }
        self.origin = Origin::File;
        Ok(())
    }
}

fn parse(trigger: &Trigger, place: Span) -> Result<Instruction, Diagnostic> {
    let refused = |message: String| {
        let shown: String = trigger.text.chars().take(100).collect();
        Diagnostic::error("onbuild", place, format!("ONBUILD trigger {shown:?}: {message}"))
    };
    let instruction = parse_trigger(&trigger.text).map_err(|errors| {
        let first = errors.into_iter().find(Diagnostic::is_error);
        refused(first.map_or("cannot be parsed".to_owned(), |error| error.message))
    })?;
    match instruction.kind {
        InstructionKind::Onbuild { .. } => {
            Err(refused("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()))
        }
        InstructionKind::Maintainer { .. } => {
            Err(refused("MAINTAINER isn't allowed as an ONBUILD trigger".to_owned()))
        }
        _ => Ok(instruction),
    }
}

/// Says whose instruction it was, which the place alone does not show. What is wrong is told at the
/// `FROM`, as in BuildKit: the trigger may be right for other stages.
fn from_trigger(stop: Stop, trigger: &Trigger, from: Span) -> Stop {
    match stop {
        Stop::Needs(stage) => Stop::Needs(stage),
        Stop::Wrong(mut error) => {
            if trigger.span.is_some() {
                error.labels.insert(0, Label { span: from, text: "fires the trigger".to_owned() });
                return Stop::Wrong(error);
            }
            let shown: String = trigger.text.chars().take(100).collect();
            Stop::Wrong(Box::new(error.label(from, format!("the base image's trigger: {shown}"))))
        }
    }
}
