//! `rbuild ps`.

use std::collections::BTreeMap;

use rbuild::{
    ContainerList, ContainerRecord, Engine, Exit, HealthStatus, SandboxNetwork, State, Status,
};
use regex::Regex;
use serde_json::{Value, json};

use crate::args::container::PsArgs;
use crate::args::filter;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::{List, Listing};
use crate::{exit_code, human, output};

/// Titles of the fields that a row has.
const TITLES: [(&str, &str); 13] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Networks", "NETWORKS"),
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
    let ContainerList { mut containers, unreadable } = engine.list_containers()?;
    for one in unreadable {
        output::note(&format!(
            "container {} is not shown: {}; `rbuild rm -f` removes it",
            output::visible(&one.name),
            one.problem
        ));
    }
    let asks_status = args.filter.iter().any(|text| {
        ["status=", "exited="].iter().any(|prefix| text.trim_start().starts_with(prefix))
    });
    let last = if args.latest { Some(1) } else { args.last };
    if !args.all && last.is_none() && !asks_status {
        containers.retain(|(_, state)| is_up(state));
    }
    for (key, values) in by_key(&args.filter)? {
        keep(&mut containers, key, &values, &engine)?;
    }
    containers.truncate(last.unwrap_or(usize::MAX));
    let rows: Vec<Value> =
        containers.iter().map(|(record, state)| row(record, state, now, args.no_trunc)).collect();
    let shown = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    let list = List { titles: &TITLES, rows, key: "ID", shown: &shown };
    list.print(listing, args.json, args.quiet)?;
    Ok(exit_code::SUCCESS)
}

/// Whether it runs, or is about to again.
pub fn is_up(state: &State) -> bool {
    matches!(state.status, Status::Running | Status::Restarting)
}

/// The values of each key, in the order of the keys.
fn by_key(texts: &[String]) -> Result<BTreeMap<&str, Vec<&str>>, Failure> {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in texts {
        let (key, value) = filter::pair(text)?;
        values.entry(key).or_default().push(value);
    }
    Ok(values)
}

/// Keeps what the filters of one key take: any of them, but for labels, which all have to be there.
fn keep(
    containers: &mut Vec<(ContainerRecord, State)>,
    key: &str,
    values: &[&str],
    engine: &Engine,
) -> Result<(), Failure> {
    let wrong = |value: &str, why: &str| Failure::usage(format!("--filter {key}={value}: {why}"));
    match key {
        "id" => {
            containers.retain(|(record, _)| values.iter().any(|value| record.id.starts_with(value)))
        }
        "name" => {
            let patterns = values
                .iter()
                .map(|value| Regex::new(value).map_err(|_| wrong(value, "no regular expression")))
                .collect::<Result<Vec<_>, _>>()?;
            containers.retain(|(record, _)| {
                let slashed = format!("/{}", record.name);
                patterns.iter().any(|it| it.is_match(&record.name) || it.is_match(&slashed))
            });
        }
        "status" => {
            let known = ["created", "running", "paused", "restarting", "exited"];
            if let Some(value) = values.iter().find(|value| !known.contains(value)) {
                return Err(Failure::usage_hint(
                    format!("--filter status={value}: there is no such status"),
                    format!("there are {}", known.join(", ")),
                ));
            }
            containers.retain(|(_, state)| values.contains(&status(state)));
        }
        "exited" => {
            let codes = values
                .iter()
                .map(|value| value.parse::<i32>().map_err(|_| wrong(value, "not a number")))
                .collect::<Result<Vec<_>, _>>()?;
            containers.retain(|(_, state)| {
                let ended = state.ended.filter(|_| state.status == Status::Exited);
                ended.is_some_and(|ended| codes.contains(&ended.exit.code()))
            });
        }
        "health" => {
            let known = ["starting", "healthy", "unhealthy", "none"];
            if let Some(value) = values.iter().find(|value| !known.contains(value)) {
                return Err(Failure::usage_hint(
                    format!("--filter health={value}: there is no such health"),
                    format!("there are {}", known.join(", ")),
                ));
            }
            containers.retain(|(_, state)| {
                let health = state.health.as_ref().map_or("none", |health| health.status.name());
                values.contains(&health)
            });
        }
        "label" => containers.retain(|(record, _)| {
            values.iter().all(|value| filter::has_label(&record.labels, value))
        }),
        "ancestor" => {
            let ids: Vec<_> = values
                .iter()
                .filter_map(|value| engine.find_image(value).map(|image| image.image_id).ok())
                .collect();
            containers.retain(|(record, _)| {
                values.contains(&record.image.as_str()) || ids.contains(&record.image_id)
            });
        }
        "before" | "since" => {
            for value in values {
                let created = engine.container(value)?.record().created;
                containers.retain(|(record, _)| match key {
                    "before" => record.created < created,
                    _ => record.created > created,
                });
            }
        }
        key => {
            let known = "id, name, status, exited, health, label, ancestor, before and since";
            return Err(filter::unknown(key, known));
        }
    }
    Ok(())
}

/// The word that Docker has for it.
pub fn status(state: &State) -> &'static str {
    match state.status {
        Status::Created => "created",
        Status::Running if state.paused => "paused",
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
        "Ports": ports(state),
        "Networks": networks(record),
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
            let health = match state.health.as_ref().map(|health| health.status) {
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            let health = if state.paused { " (Paused)" } else { health };
            format!("Up {}{health}", since.trim_end_matches(" ago"))
        }
        Status::Restarting => format!("Restarting ({code}) {ended}"),
        Status::Exited => match state.ended.map(|ended| ended.exit) {
            Some(Exit::OutOfMemory(_)) => format!("Exited ({code}) {ended} (out of memory)"),
            _ => format!("Exited ({code}) {ended}"),
        },
    }
}

/// `0.0.0.0:80->80/tcp, [::]:80->80/tcp`.
fn ports(state: &State) -> String {
    let ports = state.connected.ports.iter();
    let ports = ports.map(|it| format!("{}->{}/{}", it.host, it.container_port, it.protocol));
    ports.collect::<Vec<_>>().join(", ")
}

fn networks(record: &ContainerRecord) -> String {
    match (&record.connection, record.spec.network) {
        (Some(connection), _) => {
            let names = connection.networks.iter().map(|it| it.network.as_str());
            names.collect::<Vec<_>>().join(",")
        }
        (None, SandboxNetwork::None) => "none".to_owned(),
        (None, _) => "host".to_owned(),
    }
}

/// Milliseconds of nanoseconds.
pub fn milliseconds(nanoseconds: i64) -> i64 {
    nanoseconds / 1_000_000
}
