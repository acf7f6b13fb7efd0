//! `rbuild ps`.

use rbuild::{ContainerRecord, Engine, State, Status};
use serde_json::{Value, json};

use crate::args::container::PsArgs;
use crate::args::filter;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::{exit_code, human, output};

/// Titles of the fields that a row has.
const TITLES: [(&str, &str); 11] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("ExitCode", "EXIT CODE"),
];
/// Letters of a command that a table shows.
const COMMAND: usize = 20;

/// Lists containers, the newest first.
pub fn run(args: &PsArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let now = human::now();
    let engine = context.engine()?;
    let mut containers = engine.containers()?;
    let asks_status = args.filter.iter().any(|text| {
        ["status=", "exited="].iter().any(|prefix| text.trim_start().starts_with(prefix))
    });
    let last = if args.latest { Some(1) } else { args.last };
    if !args.all && last.is_none() && !asks_status {
        containers.retain(|(_, state)| is_up(state));
    }
    for text in &args.filter {
        keep(&mut containers, text, &engine)?;
    }
    containers.truncate(last.unwrap_or(usize::MAX));
    let rows: Vec<Value> =
        containers.iter().map(|(record, state)| row(record, state, now, args.no_trunc)).collect();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    if let Some(listing) = listing {
        output::data(listing.render(&TITLES, &rows)?)?;
    } else if args.json {
        output::json(&Value::from(rows))?;
    } else if args.quiet {
        for row in &rows {
            output::line(&text(row, "ID"))?;
        }
    } else {
        let shown = ["ID", "Image", "Command", "RunningFor", "Status", "Names"];
        let title = |field: &str| TITLES.iter().find(|(name, _)| *name == field).map(|(_, it)| *it);
        let titles: Vec<&str> = shown.iter().filter_map(|field| title(field)).collect();
        let mut table = Table::new(&titles);
        for row in &rows {
            let cells: Vec<String> = shown.iter().map(|field| text(row, field)).collect();
            table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
        output::data(table.render())?;
    }
    Ok(exit_code::SUCCESS)
}

fn is_up(state: &State) -> bool {
    matches!(state.status, Status::Running | Status::Restarting)
}

/// Keeps what one filter takes.
fn keep(
    containers: &mut Vec<(ContainerRecord, State)>,
    text: &str,
    engine: &Engine,
) -> Result<(), Failure> {
    let (key, value) = filter::pair(text)?;
    match key {
        "id" => containers.retain(|(record, _)| record.id.starts_with(value)),
        "name" => containers.retain(|(record, _)| record.name.contains(value)),
        "status" => {
            let known = ["created", "running", "restarting", "exited"];
            if !known.contains(&value) {
                return Err(Failure::usage_hint(
                    format!("--filter {text}: there is no such status"),
                    format!("there are {}", known.join(", ")),
                ));
            }
            containers.retain(|(_, state)| status(state) == value);
        }
        "exited" => {
            let code: i32 = value.parse().map_err(|_| {
                Failure::usage(format!("--filter {text}: an exit code is a number"))
            })?;
            containers.retain(|(_, state)| {
                let ended = state.ended.filter(|_| state.status == Status::Exited);
                ended.is_some_and(|ended| ended.exit.code() == code)
            });
        }
        "label" => {
            let (name, wanted) = match value.split_once('=') {
                Some((name, wanted)) => (name, Some(wanted)),
                None => (value, None),
            };
            containers.retain(|(record, _)| match (record.labels.get(name), wanted) {
                (found, None) => found.is_some(),
                (found, wanted) => found.map(String::as_str) == wanted,
            });
        }
        "ancestor" => {
            let id = engine.find_image(value).map(|image| image.image_id).ok();
            containers.retain(|(record, _)| record.image == value || Some(record.image_id) == id);
        }
        "before" => {
            let created = engine.container(value)?.record().created;
            containers.retain(|(record, _)| record.created < created);
        }
        "since" => {
            let created = engine.container(value)?.record().created;
            containers.retain(|(record, _)| record.created > created);
        }
        key => {
            let known = "id, name, status, exited, label, ancestor, before and since";
            return Err(filter::unknown(key, known));
        }
    }
    Ok(())
}

/// The word that Docker has for it.
pub fn status(state: &State) -> &'static str {
    match state.status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Restarting => "restarting",
        Status::Exited => "exited",
    }
}

fn row(record: &ContainerRecord, state: &State, now: i64, whole: bool) -> Value {
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    let command = record.spec.argv.join(" ");
    let command = match whole {
        true => command,
        false => console::truncate_str(&command, COMMAND, "…").into_owned(),
    };
    let labels: Vec<String> =
        record.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts: Vec<&str> = record.mounts.iter().map(|mount| mount.target.as_str()).collect();
    json!({
        "ID": if whole { record.id.clone() } else { short(&record.id) },
        "Image": record.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": human::timestamp(milliseconds(record.created)),
        "RunningFor": human::ago(milliseconds(record.created), now),
        "State": status(state),
        "Status": sentence(state, now),
        "Names": record.name,
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "ExitCode": state.ended.map(|ended| ended.exit.code()),
    })
}

/// `Up 5 minutes`, `Exited (0) 5 minutes ago`.
fn sentence(state: &State, now: i64) -> String {
    let ago = |time: i64| human::ago(milliseconds(time), now);
    let code = state.ended.map_or(0, |ended| ended.exit.code());
    let ended = state.ended.map_or(String::new(), |ended| ago(ended.at));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let since = state.started.map_or(String::new(), ago);
            format!("Up {}", since.trim_end_matches(" ago"))
        }
        Status::Restarting => format!("Restarting ({code}) {ended}"),
        Status::Exited => format!("Exited ({code}) {ended}"),
    }
}

/// Milliseconds of nanoseconds.
pub fn milliseconds(nanoseconds: i64) -> i64 {
    nanoseconds / 1_000_000
}
