//! `rbuild builds`.

use rbuild::{BuildRecord, BuildState, BuiltStep, Outcome, PastBuild, SHORT_BUILD};
use serde_json::{Value, json};

use crate::args::step::BuildsArgs;
use crate::commands::{Context, why};
use crate::failure::Failure;
use crate::listing::{List, Listing};
use crate::{exit_code, human};

/// Titles of the fields that a build has, and that a step has.
const TITLES: [(&str, &str); 8] = [
    ("ID", "BUILD"),
    ("EndedAt", "ENDED AT"),
    ("Status", "STATUS"),
    ("Since", "WHEN"),
    ("Steps", "STEPS"),
    ("Number", "STEP"),
    ("Name", "NAME"),
    ("ExitCode", "EXIT CODE"),
];

/// Lists builds, the newest first, or the steps of one.
pub fn run(args: &BuildsArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    let now = human::now();
    let (rows, key, shown): (Vec<Value>, _, &[&str]) = match &args.build {
        None => {
            let rows = engine.past_builds()?.iter().map(|build| of_build(build, now)).collect();
            (rows, "ID", &["ID", "Since", "Status", "Steps", "Name"])
        }
        Some(id) => {
            let record = engine.past_build(id)?.record;
            let rows = (1..).zip(&record.steps).map(|(at, step)| of_step(&record, at, step));
            (rows.collect(), "Number", &["Number", "Status", "Name"])
        }
    };
    let list = List { titles: &TITLES, rows, key, shown };
    list.print(listing, args.json, args.quiet)?;
    Ok(exit_code::SUCCESS)
}

fn of_build(build: &PastBuild, now: i64) -> Value {
    let PastBuild { record, state } = build;
    let at = if record.ended == 0 { record.began } else { record.ended };
    json!({
        "ID": record.id.get(..SHORT_BUILD).unwrap_or(&record.id),
        "EndedAt": (record.ended != 0).then(|| human::rfc3339(record.ended)),
        "Status": match state {
            BuildState::Running => "running",
            BuildState::Killed => "killed",
            BuildState::Succeeded => "built",
            BuildState::Failed => "failed",
        },
        "Since": human::ago(at, now),
        "Steps": record.steps.len(),
        "Name": record.title,
    })
}

fn of_step(record: &BuildRecord, number: usize, step: &BuiltStep) -> Value {
    // Of a build that was killed nobody knows how far a step came.
    let may_have_begun = record.ended == 0 && step.outcome == Outcome::Skipped;
    json!({
        "ID": record.id.get(..SHORT_BUILD).unwrap_or(&record.id),
        "Number": number,
        "Status": if may_have_begun { "unknown".to_owned() } else { why::outcome(step) },
        "Name": step.name,
        "ExitCode": step.failure.as_ref().and_then(|failure| failure.code),
    })
}
