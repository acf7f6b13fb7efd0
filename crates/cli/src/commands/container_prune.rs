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
    if text.starts_with("label!=") || text.starts_with("label=") {
        let takes = filter::label(text)?;
        return Ok(Box::new(move |record| takes(&record.labels)));
    }
    match filter::pair(text)? {
        ("until", time) => {
            let until = filter::time(time, human::now())?;
            Ok(Box::new(move |record| milliseconds(record.created) < until))
        }
        (key, _) => Err(filter::unknown(key, "until, label and label!")),
    }
}
