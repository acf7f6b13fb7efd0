//! `rbuild why`.

use std::time::Duration;

use rbuild::{BuildRecord, BuiltStep, Outcome, Reason};
use serde_json::{Value, json};

use crate::args::why::WhyArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::visible;
use crate::{exit_code, human, output};

/// Tells what became of the last build's steps, and why those that ran did.
pub fn run(args: &WhyArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let is_json = args.is_json()?;
    let Some(build) = context.engine()?.last_build()? else {
        return Err(Failure::usage_hint(
            "nothing was built in this store yet",
            "build something, then ask again",
        ));
    };
    let steps: Vec<(usize, &BuiltStep)> = match &args.step {
        None => (1..).zip(&build.steps).collect(),
        Some(wanted) => chosen(&build, wanted)?,
    };
    if is_json {
        let steps: Vec<Value> =
            steps.iter().map(|(number, step)| document(*number, step)).collect();
        let document = json!({
            "title": build.title,
            "ended": human::rfc3339(build.ended),
            "succeeded": build.succeeded,
            "steps": steps,
        });
        output::line(&document.to_string())?;
        return Ok(exit_code::SUCCESS);
    }
    if args.step.is_none() {
        let end = if build.succeeded { "built" } else { "failed" };
        let ago = human::ago(build.ended, human::now()).to_lowercase();
        output::line(&format!("{}: {end} {ago}", visible(&build.title)))?;
    }
    for (number, step) in steps {
        let (what, name) = (outcome(step), visible(&step.name));
        output::line(&format!("{number:>3}  {what:<8} {name}"))?;
        let told = if args.step.is_none() { 1 } else { step.reasons.len() };
        for reason in step.reasons.iter().take(told) {
            output::line(&format!("{:14}because {}", "", visible(&reason.to_string())))?;
        }
    }
    Ok(exit_code::SUCCESS)
}

/// The steps that a number or a part of a name means.
fn chosen<'a>(
    build: &'a BuildRecord,
    wanted: &str,
) -> Result<Vec<(usize, &'a BuiltStep)>, Failure> {
    let all = (1..).zip(&build.steps);
    let found: Vec<_> = match wanted.parse::<usize>() {
        Ok(number) => all.filter(|(at, _)| *at == number).collect(),
        Err(_) => {
            let wanted = wanted.to_lowercase();
            all.filter(|(_, step)| step.name.to_lowercase().contains(&wanted)).collect()
        }
    };
    match found.is_empty() {
        false => Ok(found),
        true => Err(Failure::usage_hint(
            format!("the last build has no step {wanted:?}"),
            format!("`rbuild why` lists its {} steps", build.steps.len()),
        )),
    }
}

pub(super) fn outcome(step: &BuiltStep) -> String {
    match step.outcome {
        Outcome::Cached => "cached".to_owned(),
        Outcome::Ran => human::duration(Duration::from_millis(step.duration_ms)),
        Outcome::Failed => "failed".to_owned(),
        _ => "not run".to_owned(),
    }
}

fn document(number: usize, step: &BuiltStep) -> Value {
    json!({
        "number": number,
        "name": step.name,
        "stage": step.stage,
        "outcome": step.outcome,
        "ms": step.duration_ms,
        "key": step.key,
        "reasons": step.reasons.iter().map(reason).collect::<Vec<_>>(),
    })
}

/// A reason with its text beside its fields.
pub(super) fn reason(reason: &Reason) -> Value {
    let mut document = json!(reason);
    document["text"] = json!(reason.to_string());
    document
}
