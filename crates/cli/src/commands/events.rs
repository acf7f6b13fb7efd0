//! `rbuild events`.

use std::time::Duration;

use rbuild::CancelToken;
use rbuild::events::Event;
use serde_json::{Value, json};

use crate::args::events::{EventFilters, EventsArgs};
use crate::args::filter;
use crate::commands::Context;
use crate::failure::Failure;
use crate::template::Template;
use crate::{exit_code, human, interrupt, output};

/// How often it is looked whether something happened. A look is a read that finds nothing.
const PERIOD: Duration = Duration::from_millis(50);

/// Shows what happened, and what happens until it is interrupted.
pub fn run(args: &EventsArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let now = human::now();
    let time = |text: &Option<String>| -> Result<Option<i64>, Failure> {
        let time = text.as_deref().map(|text| filter::time(text, now)).transpose()?;
        Ok(time.and_then(|time| time.checked_mul(1_000_000)))
    };
    let (since, until) = (time(&args.since)?, time(&args.until)?);
    let filters = EventFilters::parse(&args.filter)?;
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let (past, mut follow) = context.engine()?.events()?;
    let as_json = args.format.as_deref() == Some("json");
    let show = |event: &Event| -> Result<(), Failure> {
        let in_time = since.is_none_or(|since| event.time >= since)
            && until.is_none_or(|until| event.time <= until);
        match in_time && filters.take(event) {
            true if as_json => output::line(&json_of(event).to_string()),
            true => print(event, template.as_ref()),
            false => Ok(()),
        }
    };
    if since.is_some() || until.is_some() {
        past.iter().try_for_each(show)?;
    }
    while !is_over(until, &cancel) {
        let more = follow.more().map_err(Failure::io("read the events"))?;
        more.iter().try_for_each(show)?;
        if more.is_empty() {
            std::thread::sleep(PERIOD);
        }
    }
    Ok(exit_code::SUCCESS)
}

fn is_over(until: Option<i64>, cancel: &CancelToken) -> bool {
    let now = human::now().saturating_mul(1_000_000);
    cancel.is_cancelled() || until.is_some_and(|until| until < now)
}

fn print(event: &Event, template: Option<&Template>) -> Result<(), Failure> {
    match template {
        Some(template) => output::line(&template.render(&fields(event))?),
        None => output::line(&line(event)),
    }
}

/// Docker's document.
fn json_of(event: &Event) -> Value {
    document(event, ["scope", "time", "timeNano"])
}

/// The fields of a template, which have other names than those of the document.
fn fields(event: &Event) -> Value {
    document(event, ["Scope", "Time", "TimeNano"])
}

fn document(event: &Event, [scope, time, nanoseconds]: [&str; 3]) -> Value {
    json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.actor.id, "Attributes": event.actor.attributes },
        scope: "local",
        time: event.time / 1_000_000_000,
        nanoseconds: event.time,
    })
}

/// Docker's line: when, what, and what is said of it.
fn line(event: &Event) -> String {
    let attributes = event.actor.attributes.iter();
    let attributes: Vec<String> =
        attributes.map(|(name, value)| format!("{name}={value}")).collect();
    let time = rbuild::events::written(event.time);
    let text = format!(
        "{time} {} {} {} ({})",
        event.kind,
        event.action,
        event.actor.id,
        attributes.join(", ")
    );
    output::visible(&text)
}
