//! `rbuild container prune`.

use std::io::IsTerminal as _;

use rbuild::{ContainerRecord, Status};

use crate::args::container::ContainerPruneArgs;
use crate::args::filter;
use crate::commands::ps::milliseconds;
use crate::commands::{Context, prune};
use crate::failure::Failure;
use crate::{exit_code, human, output, report};

/// Removes containers that do not run.
pub fn run(args: &ContainerPruneArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let takes = args.filter.iter().map(|text| takes(text)).collect::<Result<Vec<_>, _>>()?;
    let what = "all containers that do not run";
    if !args.force && std::io::stdin().is_terminal() && !prune::is_meant(what)? {
        return Ok(exit_code::FAILURE);
    }
    let engine = context.engine()?;
    let mut code = exit_code::SUCCESS;
    for (record, state) in engine.containers()? {
        let over = matches!(state.status, Status::Created | Status::Exited);
        if !over || !takes.iter().all(|take| take(&record)) {
            continue;
        }
        match engine.container(&record.id).and_then(|mut container| container.remove(false)) {
            Ok(()) => output::line(&record.id)?,
            Err(error) => code = report::failure(&error.into()),
        }
    }
    Ok(code)
}

type Take = Box<dyn Fn(&ContainerRecord) -> bool>;

/// Whether a filter takes a container.
fn takes(text: &str) -> Result<Take, Failure> {
    let has = |label: &str| -> Take {
        let (name, wanted) = match label.split_once('=') {
            Some((name, wanted)) => (name.to_owned(), Some(wanted.to_owned())),
            None => (label.to_owned(), None),
        };
        Box::new(move |record| match (record.labels.get(&name), &wanted) {
            (found, None) => found.is_some(),
            (found, wanted) => found == wanted.as_ref(),
        })
    };
    if let Some(label) = text.strip_prefix("label!=") {
        let has = has(label);
        return Ok(Box::new(move |record| !has(record)));
    }
    match filter::pair(text)? {
        ("label", label) => Ok(has(label)),
        ("until", time) => {
            let until = filter::time(time, human::now())?;
            Ok(Box::new(move |record| milliseconds(record.created) < until))
        }
        (key, _) => Err(filter::unknown(key, "until, label and label!")),
    }
}
